"""The Textual screen, the command line, and the one adapter between engine and store."""
