"""Real servers as processes of this machine: installed into the cache, started on free loopback ports."""
