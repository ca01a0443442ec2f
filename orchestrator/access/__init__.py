"""Who may do what: API tokens with their scopes, and the permissions of Django that verbs need."""
