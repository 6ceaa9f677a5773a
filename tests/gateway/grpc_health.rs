//! The health protocol of gRPC (grpc.health.v1) through the gateway, between client and server of tonic.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Told;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::{HealthReporter, health_reporter};

use super::grpc::gateway;
use crate::harness::Gateway;

/// A server that tells how its services are.
async fn server() -> (SocketAddr, HealthReporter) {
    let (reporter, service) = health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)));
    (address, reporter)
}

/// A gateway before it; blocking, as the harness is.
async fn before(server: SocketAddr) -> Gateway {
    let start = move || gateway(&server.to_string(), "");
    tokio::task::spawn_blocking(start).await.unwrap()
}

async fn client(gateway: &Gateway) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).unwrap();
    HealthClient::new(endpoint.timeout(Duration::from_secs(20)).connect().await.unwrap())
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_and_watches_pass() {
    let (server, reporter) = server().await;
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let gateway = before(server).await;
    let mut client = client(&gateway).await;

    let told = client.check(of("shop")).await.unwrap().into_inner();
    assert_eq!(told.status(), Told::Serving);
    assert_eq!(client.check(of("nothing")).await.unwrap_err().code(), Code::NotFound);

    let mut watch = client.watch(of("shop")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Told::Serving);
    for (status, told) in
        [(ServingStatus::NotServing, Told::NotServing), (ServingStatus::Serving, Told::Serving)]
    {
        reporter.set_service_status("shop", status).await;
        assert_eq!(watch.message().await.unwrap().unwrap().status(), told, "as it happens");
    }
    tokio::task::block_in_place(|| drop((watch, client, gateway)));
}

/// A hundred at once over one connection, each with its own answer.
#[tokio::test(flavor = "multi_thread")]
async fn many_checks_share_a_connection() {
    let (server, reporter) = server().await;
    for number in 0..100 {
        let status = if number % 2 == 0 { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(format!("s{number}"), status).await;
    }
    let gateway = before(server).await;
    let client = client(&gateway).await;
    let checks = (0..100).map(|number| {
        let mut client = client.clone();
        async move { client.check(of(&format!("s{number}"))).await.unwrap().into_inner().status() }
    });
    let told = futures_util::future::join_all(checks).await;
    for (number, told) in told.into_iter().enumerate() {
        assert_eq!(told == Told::Serving, number % 2 == 0, "s{number}");
    }
    let open = "portcullis_connections_active{listener=\"web\"}";
    let connections = tokio::task::block_in_place(|| gateway.metric(open));
    assert_eq!(connections, 1.0);
    tokio::task::block_in_place(|| drop((client, gateway)));
}
