"""The forms that event files have. What is not surely one of them is refused, with the file's line."""
