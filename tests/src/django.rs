//! Django with sessions in files.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::built;
use crate::http::Request;
use crate::ports;
use crate::process::Process;

const PAGE: &str = r#"
import sys
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import re_path

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="secret",
    SESSION_ENGINE="django.contrib.sessions.backends.file",
    SESSION_FILE_PATH=sys.argv[2],
)

def page(request):
    session = request.session
    if request.path == "/login":
        session.cycle_key()
        session["user"] = request.GET["user"]
    if request.path == "/count":
        session["count"] = session.get("count", 0) + 1
    return JsonResponse({"id": session.session_key, "count": session.get("count", 0), "user": session.get("user")})

urlpatterns = [re_path("", page)]
make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()).serve_forever()
"#;

/// A running server.
pub struct Django {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Django {
    /// Starts it on a free port, with this folder for its sessions.
    pub fn start(store: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let page = folder.path().join("page.py");
        fs::write(&page, PAGE).expect("the temporary folder can be written to");
        let packages = built::tool("DJANGO_PACKAGES", "django-packages", "django", "");
        let port = ports::free();
        let mut command = Command::new("python3");
        command.arg(page).arg(port.to_string()).arg(store).env("PYTHONPATH", packages);
        let mut process = Process::start("django", command, "./test.sh installs it.");
        process.until(|| Request::get("/").try_send(port).filter(|answer| answer.status == 200));
        Self { port, _process: process, _folder: folder }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}
