//! What is published of everything of a type.
