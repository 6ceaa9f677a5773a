use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use futures_util::StreamExt;
use tempfile::NamedTempFile;

use super::*;

fn service(priority: u16, weight: u16, port: u16) -> Service {
    Service { priority, weight, port, target: "t".into() }
}

fn ips(last: &[u8]) -> Addresses {
    last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
}

fn shown(specs: &[EndpointSpec]) -> Vec<String> {
    specs.iter().map(|spec| format!("{} {}@{}", spec.priority, spec.address, spec.weight)).collect()
}

#[test]
fn services_keep_their_order_and_share_their_weight() {
    let found = [
        (service(20, 0, 80), ips(&[5])),
        (service(10, 60, 80), ips(&[4, 3])),
        (service(15, 1, 80), ips(&[])),
        (service(10, 7, 81), ips(&[3])),
    ];
    let answer = Answer::new("s", specs(found.into_iter()), Duration::ZERO).unwrap();
    let wanted = ["0 10.0.0.3:80@30", "0 10.0.0.3:81@7", "0 10.0.0.4:80@30", "1 10.0.0.5:80@1"];
    assert_eq!(shown(&answer.specs), wanted);
    assert_eq!(answer.holds, SHORTEST);
}

#[test]
fn an_address_comes_once_where_it_is_wanted_most() {
    let found =
        [(service(2, 10, 80), ips(&[1])), (service(1, 20, 80), ips(&[1])), (service(1, 30, 80), ips(&[1]))];
    let answer = Answer::new("s", specs(found.into_iter()), Duration::MAX).unwrap();
    assert_eq!(shown(&answer.specs), ["0 10.0.0.1:80@50"]);
    assert_eq!(answer.holds, LONGEST);
    assert!(Answer::new("s", Vec::new(), LONGEST).is_err());
}

#[test]
fn pauses_grow_up_to_a_minute() {
    let pauses: Vec<u64> =
        [0, 1, 2, 5, 6, 100, u32::MAX].map(|failures| pause_after(failures, 0.5).as_secs()).into();
    assert_eq!(pauses, [1, 2, 4, 32, 60, 60, 60]);
    assert!(pause_after(9, 1.0) <= LAST_PAUSE.mul_f64(1.101));
}

/// Debian's `dnsmasq` (package dnsmasq-base) with these records, or nothing where it is not installed.
struct Dnsmasq {
    process: Child,
    address: SocketAddr,
    hosts: NamedTempFile,
}

impl Dnsmasq {
    /// Starts one, on another port where somebody else takes the first; `None` where there is no such program.
    fn start(hosts: &str, options: &[&str]) -> Option<Self> {
        (0..10).find_map(|_| Self::try_start(hosts, options).transpose())?.ok()
    }

    /// `Ok(None)` when it ended at once.
    fn try_start(hosts: &str, options: &[&str]) -> Result<Option<Self>, std::io::Error> {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(hosts.as_bytes()).unwrap();
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--no-daemon",
        ]);
        command.args(["--conf-file=/dev/null", "--pid-file=", "--listen-address=127.0.0.1", "--local-ttl=1"]);
        command.args(["--local=/test/", "--user=root"]).arg(format!("--port={}", free.port()));
        command.arg(format!("--addn-hosts={}", file.path().display())).args(options);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self { process: process?, address: free, hosts: file };
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(server.address).is_err() {
            if server.process.try_wait()?.is_some() {
                return Ok(None);
            }
            assert!(Instant::now() < patience, "dnsmasq does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(server))
    }

    fn rewrite(&mut self, hosts: &str) {
        std::fs::write(self.hosts.path(), hosts).unwrap();
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

type Watching = BoxStream<'static, Result<Vec<EndpointSpec>, DiscoveryError>>;

/// What is told next that is not a failure: the server is deaf while it reads its files again.
async fn told(watch: &mut Watching) -> Vec<String> {
    let answer = async { watch.by_ref().filter_map(async |told| told.ok()).boxed().next().await.unwrap() };
    shown(&tokio::time::timeout(Duration::from_secs(30), answer).await.unwrap())
}

#[tokio::test]
async fn a_server_is_asked() {
    let hosts = "10.0.0.2 a.test\n10.0.0.1 a.test\n2001:db8::1 a.test\n10.0.0.9 b.test\n";
    let services = ["--srv-host=_http._tcp.test,a.test,8080,5,9", "--srv-host=_http._tcp.test,b.test,81,7,0"];
    let Some(mut server) = Dnsmasq::start(hosts, &services) else {
        eprintln!("dnsmasq is not installed: nothing is tested");
        return;
    };
    let resolver = DnsResolver::new(&[server.address]).unwrap();
    let addresses = |name: &str| DnsQuery::Addresses { name: name.into(), port: 80 };
    let mut watch = DnsDiscovery::new(resolver.clone(), addresses("a.test.")).watch();
    let all = ["0 10.0.0.1:80@1", "0 10.0.0.2:80@1", "0 [2001:db8::1]:80@1"];
    assert_eq!(told(&mut watch).await, all);

    let services = DnsQuery::Services { name: "_http._tcp.test.".into() };
    let mut by_service = DnsDiscovery::new(resolver.clone(), services).watch();
    let all = ["0 10.0.0.1:8080@3", "0 10.0.0.2:8080@3", "0 [2001:db8::1]:8080@3", "1 10.0.0.9:81@1"];
    assert_eq!(told(&mut by_service).await, all);

    let nobody = DnsDiscovery::new(resolver.clone(), addresses("c.test.")).watch().next().await.unwrap();
    assert_eq!(nobody, Err(DiscoveryError::NotFound { name: "c.test.".into() }));

    server.rewrite("10.0.0.7 a.test\n");
    assert_eq!(told(&mut watch).await, ["0 10.0.0.7:80@1"]);

    drop(server);
    let gone = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap();
    assert!(matches!(gone, Err(DiscoveryError::Unanswered { .. })), "{gone:?}");
}
