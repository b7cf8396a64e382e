"""The files a model is written in: a module for each, which writes the file and runs it."""
