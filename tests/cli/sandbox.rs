//! `tokenwal sandbox`: started, used as its own text says, and stopped by Ctrl-C.

use crate::stores::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A sandbox in a process of its own.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwal"));
        let command = command.arg("sandbox").args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Presses Ctrl-C and returns the exit code and what else was printed.
    fn interrupted(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a request and returns status, head and body; status 0 where no answer came.
fn http(method: &str, url: &str, body: &str) -> (u16, String, String) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is cut gives what came before.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status, head.to_owned(), body.to_owned())
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body}"))
}

/// Clicks through an approval and exchanges its code.
fn approve(running: &Value, hint: &str) -> Value {
    let text = |pointer: &str| running.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let (id, secret) = (text("/client_id"), text("/client_secret"));
    let click = format!(
        "{}?response_type=code&client_id={id}&redirect_uri=http://127.0.0.1:9/cb&state=s\
         &scope=api&login_hint={hint}",
        text("/endpoints/authorize")
    );
    let (status, head, _) = http("GET", &click, "");
    assert_eq!(status, 302);
    let code = head.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let form = format!(
        "grant_type=authorization_code&code={code}&redirect_uri=http://127.0.0.1:9/cb\
         &client_id={id}&client_secret={secret}"
    );
    let (status, _, body) = http("POST", &text("/endpoints/token"), &form);
    assert_eq!(status, 200, "{body}");
    json_of(&body)
}

fn refresh(running: &Value, pair: &Value) -> (u16, String) {
    let form = format!(
        "grant_type=refresh_token&refresh_token={}&client_id={}&client_secret={}",
        pair["refresh_token"].as_str().unwrap(),
        running["client_id"].as_str().unwrap(),
        running["client_secret"].as_str().unwrap()
    );
    let (status, _, body) = http("POST", running["endpoints"]["token"].as_str().unwrap(), &form);
    (status, body)
}

#[test]
fn it_serves_until_it_is_interrupted() {
    let mut sandbox = Running::start(&["--json", "--cap", "3", "--web-sessions", "1"]);
    let running = json_of(&sandbox.line());
    assert_eq!((&running["profile"], &running["cap"]), (&"salesforce".into(), &3.into()));
    let admin = |name: &str| running["admin"][name].as_str().unwrap().to_owned();

    // One web session and two pairs; the third pair ends the first.
    let pairs: Vec<Value> = (0..3).map(|_| approve(&running, "alice")).collect();
    assert_eq!(refresh(&running, &pairs[0]).0, 400);
    assert_eq!(refresh(&running, &pairs[1]).0, 200);

    // The answer to the second refresh from now is lost.
    let fault = r#"{"fault": "drop_after_commit", "on": "refresh", "nth": 2}"#;
    assert_eq!(http("POST", &admin("faults"), fault).0, 200);
    let statuses = [0; 3].map(|_: u16| refresh(&running, &pairs[1]).0);
    assert_eq!(statuses, [200, 0, 200]);

    // Three hours pass: access tokens are over, refresh tokens are not.
    let access = pairs[2]["access_token"].as_str().unwrap();
    let form = format!("token={access}&client_id=sandbox-consumer-key&client_secret=");
    let form = form + running["client_secret"].as_str().unwrap();
    let introspect = running["endpoints"]["introspect"].as_str().unwrap();
    assert_eq!(json_of(&http("POST", introspect, &form).2)["active"], true);
    assert_eq!(http("POST", &admin("clock"), r#"{"advance_s": 10800}"#).0, 200);
    assert_eq!(json_of(&http("POST", introspect, &form).2)["active"], false);
    assert_eq!(refresh(&running, &pairs[2]).0, 200);

    // Somebody else signs in, whatever the hint.
    assert_eq!(http("POST", &admin("sign_in"), r#"{"user": "bob"}"#).0, 200);
    let bobs = approve(&running, "alice");
    assert_ne!(bobs["id"], pairs[2]["id"]);

    let state = json_of(&http("GET", &admin("state"), "").2);
    let names: Vec<_> =
        state["users"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(state["endings"].as_array().unwrap().len(), 1);
    assert_eq!(state["endings"][0]["reason"], "evicted");
    assert_eq!(state["endings"][0]["by"]["approval"], 3, "the pair that took its place");

    assert_eq!(sandbox.interrupted(), (Some(0), String::new()));
}

#[test]
fn it_tells_people_what_they_can_do() {
    let mut sandbox = Running::start(&["--profile", "salesforce-rotating"]);
    let mut said = String::new();
    while !said.contains("Ctrl-C") {
        let line = sandbox.line();
        assert!(!line.is_empty(), "it ended after {said}");
        said.push_str(&line);
    }
    for text in
        ["salesforce-rotating", "sandbox-consumer-secret", "rotation       on", "4 approvals"]
    {
        assert!(said.contains(text), "{text} in {said}");
    }
    // Each of its examples works.
    for line in said.lines().filter_map(|line| line.trim().strip_prefix("curl ")) {
        let (status, body) = match line.strip_prefix("-d '").and_then(|rest| rest.split_once("' "))
        {
            Some((body, url)) => (http("POST", url, body).0, body),
            None => (http("GET", &format!("{line}?"), "").0, ""),
        };
        assert_eq!(status, 200, "{line} with {body}");
    }
    assert_eq!(sandbox.interrupted(), (Some(0), String::new()));
}

#[test]
fn what_cannot_be_served_is_said() {
    tokenwal(&["sandbox", "--profile", "nobody"])
        .says(1, &["no provider is named nobody", "salesforce", "--file"]);
    tokenwal(&["sandbox", "--file", "/nonexistent.toml"]).says(1, &["/nonexistent.toml", "TOML"]);
    let store = Store::named();
    let file = store.beside("mine.toml");
    std::fs::write(&file, "name = \"mine\"\n[rotation]\nvalue = \"sometimes\"\n").unwrap();
    let file = file.to_str().unwrap();
    tokenwal(&["sandbox", "--file", file]).says(1, &["mine.toml", "rotation.value", "3"]);
    tokenwal(&["sandbox", "--cap", "0"]).with(2);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    tokenwal(&["sandbox", "--port", &port]).says(1, &[port.as_str(), "choose another port"]);
}

#[test]
fn a_file_of_ones_own_is_played() {
    let store = Store::named();
    let file = store.beside("mine.toml");
    let text = "name = \"mine\"\nextends = \"xero\"\n[rotation]\nvalue = \"never\"\n";
    std::fs::write(&file, text).unwrap();
    let mut sandbox = Running::start(&["--json", "--file", file.to_str().unwrap()]);
    let running = json_of(&sandbox.line());
    assert_eq!((&running["profile"], &running["rotation"]), (&"mine".into(), &false.into()));
    let pair = approve(&running, "alice");
    assert!(pair["id_token"].is_string() && pair["expires_in"].is_number(), "{pair}");
    assert_eq!(sandbox.interrupted().0, Some(0));
}
