"""Pages and actions: each connects a query, a presenter and a template."""
