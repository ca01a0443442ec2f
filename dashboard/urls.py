"""The addresses of the pages.  A region has its page's address, with ``?regions=``."""

from django.urls import path, re_path

from .views import actions
from .views.executions import ExecutionPage
from .views.jobs import Definition, JobPage, Jobs
from .views.nodes import NodePage, Nodes
from .views.overview import Overview
from .views.queue import EvaluationPage, Queue
from .views.secrets import Secrets

app_name = "dashboard"

_ID = r"(?P<pk>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})"

urlpatterns = [
    path("", Overview.as_view(), name="overview"),
    path("jobs/", Jobs.as_view(), name="jobs"),
    path("jobs/<uuid:pk>/stop", actions.stop, name="stop"),
    path("jobs/<uuid:pk>/rerun", actions.rerun, name="rerun"),
    re_path(
        r"^jobs/" + _ID + r"/(?P<verb>evaluate|retry|drop)$", actions.evaluate, name="evaluate"
    ),
    path("jobs/<str:reference>/", JobPage.as_view(), name="job"),
    path("jobs/<str:reference>/definition/", Definition.as_view(), name="definition"),
    path("executions/<str:reference>/", ExecutionPage.as_view(), name="execution"),
    path("nodes/", Nodes.as_view(), name="nodes"),
    re_path(
        r"^nodes/"
        + _ID
        + r"/(?P<verb>approve|reject|release|remove|eligible|ineligible|drain|undrain|label)$",
        actions.node,
        name="node-verb",
    ),
    path("nodes/<str:reference>/", NodePage.as_view(), name="node"),
    path("secrets/", Secrets.as_view(), name="secrets"),
    re_path(r"^secrets/(?P<verb>put|delete)$", actions.secret, name="secret"),
    path("queue/", Queue.as_view(), name="queue"),
    path("queue/pause", actions.pause, name="pause"),
    path("queue/resume", actions.resume, name="resume"),
    path("evaluations/<int:pk>/", EvaluationPage.as_view(), name="evaluation"),
]
