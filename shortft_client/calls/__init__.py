"""Every request that the service understands, one function each; none of them sends anything."""
