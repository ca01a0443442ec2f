"""Whoever could do something keeps it: Django's permissions become roles."""

from django.db import migrations

#: The least role that includes what a permission allowed, and whether it is for all namespaces.
#: Jobs are all in the namespace default; nodes, queue and join tokens are the cluster's.
ROLES = (
    ("nodes", "add_jointoken", "admin", True),
    ("nodes", "change_node", "operator", True),
    ("orchestrator", "change_clustersetting", "operator", True),
    ("orchestrator", "change_job", "operator", False),
)


def give_roles(apps, _editor):
    user, group = apps.get_model("auth", "User"), apps.get_model("auth", "Group")
    binding = apps.get_model("orchestrator", "RoleBinding")
    for app, codename, role, everywhere in ROLES:
        has = {"content_type__app_label": app, "codename": codename}
        place = None if everywhere else "default"
        users = user.objects.filter(**{f"user_permissions__{k}": v for k, v in has.items()})
        groups = group.objects.filter(**{f"permissions__{k}": v for k, v in has.items()})
        for who in ({"user": it} for it in users):
            binding.objects.get_or_create(**who, namespace_id=place, defaults={"role": role})
        for who in ({"group": it} for it in groups):
            binding.objects.get_or_create(**who, namespace_id=place, defaults={"role": role})
    # Whoever could sign in saw everything.
    for it in user.objects.all():
        binding.objects.get_or_create(user=it, namespace=None, defaults={"role": "viewer"})


class Migration(migrations.Migration):

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("orchestrator", "0007_namespaces"),
    ]

    operations = [migrations.RunPython(give_roles, migrations.RunPython.noop)]
