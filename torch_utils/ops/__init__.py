"""Image operators with exact first and second derivatives. Importing this package builds and compiles nothing."""
