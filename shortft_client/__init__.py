"""A typed client of the HTTP interface, and its commands; needs neither torch nor a server."""
