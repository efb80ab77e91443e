"""The page that one run leaves behind: read the folder, draw, write report.html. Importing it does no work."""
