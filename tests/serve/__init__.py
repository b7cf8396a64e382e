"""Tests of arraylstm_serve, against a bundle built by hand."""
