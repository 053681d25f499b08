"""Changes of the schema, in the order of their numbers; what is released is never edited."""
