"""The engine that keeps its rows on a GPU; it needs the packages of the extra `serve-gpu`."""
