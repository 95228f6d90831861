//! A stock Tomcat 10, with the pages of the demo or with a test's own page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::built;
use crate::http::Request;
use crate::ports;
use crate::process::Process;

/// A Tomcat; it may be restarted on the same port.
pub struct Tomcat {
    port: u16,
    colour: &'static str,
    /// What stands for the demo's folder.
    base: Option<PathBuf>,
    process: Option<Process>,
    folder: TempDir,
}

/// An application of one page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Application<'a> {
    /// A JSP, for every path.
    pub page: &'a str,
    /// Archives that it needs, in Debian's folder for them.
    pub jars: &'a [&'a str],
    /// Attributes of its `Context`.
    pub attributes: &'a str,
    /// Elements in its `Context`.
    pub elements: &'a str,
}

impl Tomcat {
    /// Starts a Tomcat whose page has this colour (`red` or `blue`). Other work can be done until [`Self::ready`].
    pub fn start(colour: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::spawned(colour, None, folder)
    }

    /// Starts a Tomcat with this application.
    pub fn serve(application: &Application<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let base = folder.path().join("base");
        application.install(&base);
        Self::spawned("none", Some(base), folder)
    }

    fn spawned(colour: &'static str, base: Option<PathBuf>, folder: TempDir) -> Self {
        let mut tomcat = Self { port: ports::free(), colour, base, process: None, folder };
        tomcat.spawn();
        tomcat
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it serves its pages.
    pub fn ready(mut self) -> Self {
        self.wait();
        self
    }

    /// Kills it and starts it anew; what it kept in memory is lost.
    pub fn restart(&mut self) {
        self.process = None;
        self.spawn();
        self.wait();
    }

    fn spawn(&mut self) {
        let mut command = Command::new(built::root().join("scripts/tomcat.sh"));
        command.args([self.port.to_string().as_str(), self.colour]).arg(self.folder.path());
        if let Some(base) = &self.base {
            command.env("TOMCAT_BASE", base);
        }
        self.process = Some(Process::start("tomcat", command, "It is part of this repository."));
    }

    fn wait(&mut self) {
        let port = self.port;
        let process = self.process.as_mut().expect("it was spawned");
        process.until(|| Request::get("/").try_send(port).filter(|answer| answer.status == 200));
    }
}

impl Application<'_> {
    /// Writes what a Tomcat needs to serve it into a new folder.
    fn install(&self, base: &Path) {
        let write = |path: &str, text: &str| {
            let path = base.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the temporary folder can be written to");
            fs::write(path, text).expect("the temporary folder can be written to");
        };
        let server = fs::read_to_string(built::root().join("demo/tomcat/conf/server.xml")).expect("the demo's file");
        let (before, _) = server.split_once("<Context").expect("a context");
        let (_, after) = server.split_once("</Context>").expect("a context");
        let Self { attributes, elements, .. } = self;
        let context =
            format!(r#"<Context path="" docBase="${{catalina.base}}/webapp" {attributes}>{elements}</Context>"#);
        write("conf/server.xml", &[before, &context, after].concat());
        write("webapp/page.jsp", self.page);
        write(
            "webapp/WEB-INF/web.xml",
            r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="5.0">
                <servlet><servlet-name>page</servlet-name><jsp-file>/page.jsp</jsp-file></servlet>
                <servlet-mapping><servlet-name>page</servlet-name><url-pattern>/</url-pattern></servlet-mapping>
                <servlet>
                    <servlet-name>jsp</servlet-name><servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class>
                </servlet>
            </web-app>"#,
        );
        let jars = base.join("webapp/WEB-INF/lib");
        fs::create_dir_all(&jars).expect("the temporary folder can be written to");
        for jar in self.jars {
            let source = Path::new("/usr/share/java").join(jar);
            fs::copy(&source, jars.join(jar))
                .unwrap_or_else(|error| panic!("{}: {error}: ./test.sh installs it.", source.display()));
        }
    }
}
