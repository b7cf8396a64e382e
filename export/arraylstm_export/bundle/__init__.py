"""The folder that an export leaves: written, proven, and verified again later."""
