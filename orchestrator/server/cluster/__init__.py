"""The processes of django-q2, made so that any of them may be killed at any moment."""
