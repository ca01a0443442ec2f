"""How Muster runs: settings and addresses, its processes, its database, and what keeps them up."""
