//! TLS between a machine that joins and its controller: TLS 1.3 with bare public keys (RFC 7250), for there is nobody who could sign a certificate. The
//! joiner knows half of the hash of the controller's key, from its token. One question and one answer a connection, each a length and JSON.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme, StreamOwned, version::TLS13,
};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::message::{Ask, Reply};
use super::token::PIN;
use crate::diagnostic::{Code, Diagnostic, Result};

/// The port when none is said.
pub const PORT: u16 = 4506;
/// A question or an answer is no longer than this.
const LONGEST: usize = 64 << 10;
/// Connections at the same time; more are closed at once.
const CONNECTIONS: usize = 64;
/// For everything but an answer that takes work.
const PATIENCE: Duration = Duration::from_secs(10);

/// The controller's key.
pub struct Identity {
    config: Arc<ServerConfig>,
    pair: Ed25519KeyPair,
    /// Its public part, as it goes over the wire.
    pub key: Vec<u8>,
    pub pin: [u8; PIN],
}

impl Identity {
    /// A new key, as `of` reads it.
    pub fn make() -> Result<Vec<u8>> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Diagnostic::new(Code::Internal, "there are no random numbers"))?;
        Ok(key.as_ref().to_vec())
    }

    pub fn of(key: &[u8]) -> Result<Identity> {
        let damaged = |e: rustls::Error| Diagnostic::new(Code::Damaged, format!("the controller's key cannot be used: {e}"));
        let pair = Ed25519KeyPair::from_pkcs8(key)
            .map_err(|e| Diagnostic::new(Code::Damaged, format!("the controller's key cannot be used: {e}")))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&key).map_err(damaged)?;
        let public = signing.public_key().ok_or_else(|| Diagnostic::new(Code::Damaged, "the controller's key has no public part"))?;
        let (key, public) = (public.as_ref().to_vec(), CertificateDer::from(public.as_ref().to_vec()));
        let pin = pin_of(&public);
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(vec![public], signing)));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(damaged)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        Ok(Identity { config: Arc::new(config), pair, key, pin })
    }

    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

pub(super) fn pin_of(key: &[u8]) -> [u8; PIN] {
    let digest: [u8; 32] = Sha256::digest(key).into();
    std::array::from_fn(|at| digest[at])
}

/// A question that came in, from whom, and where its answer goes.
pub struct Asked {
    pub ask: Ask,
    pub from: IpAddr,
    pub reply: oneshot::Sender<Reply>,
}

/// Answers until `questions` is dropped. Threads that wait for a slow machine end with their patience.
pub fn serve(listener: TcpListener, identity: &Identity, questions: mpsc::Sender<Asked>) {
    let config = identity.config.clone();
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if questions.is_closed() {
                return;
            }
            let Ok(stream) = stream else { continue };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (config, questions, open) = (config.clone(), questions.clone(), open.clone());
            std::thread::spawn(move || {
                // Who does not speak as agreed is not answered.
                let _ = converse(stream, config, &questions);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

fn converse(stream: TcpStream, config: Arc<ServerConfig>, questions: &mpsc::Sender<Asked>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let from = stream.peer_addr()?.ip().to_canonical();
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    let asked = read(&mut tls)?;
    let reply = match serde_json::from_slice::<Ask>(&asked) {
        Ok(ask) => {
            let (reply, answer) = oneshot::channel();
            questions.blocking_send(Asked { ask, from, reply }).map_err(std::io::Error::other)?;
            answer.blocking_recv().map_err(std::io::Error::other)?
        }
        Err(e) => Reply::Refused { why: format!("the controller does not understand the question: {e}") },
    };
    write(&mut tls, &serde_json::to_vec(&reply)?)?;
    tls.conn.send_close_notify();
    tls.flush()
}

/// Whom a joiner talks to.
#[derive(Clone)]
pub enum Peer {
    /// Who has this key.
    Pinned([u8; PIN]),
    /// Whoever is there, to be asked about: nothing is told it.
    Unknown(Arc<Mutex<Option<[u8; PIN]>>>),
}

/// The key of the controller at that address. Nothing is told it.
pub fn fingerprint(address: &str) -> Result<[u8; PIN]> {
    let seen = Arc::new(Mutex::new(None));
    let mut tls = connect(address, &Peer::Unknown(seen.clone()))?;
    let _ = tls.conn.complete_io(&mut tls.sock);
    let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.ok_or_else(|| Diagnostic::new(Code::Unreachable, format!("what answers at {address} is no controller")).into())
}

/// Asks a controller; it may take `patience` to answer.
pub fn ask(address: &str, pin: [u8; PIN], ask: &Ask, patience: Duration) -> Result<Reply> {
    let mut tls = connect(address, &Peer::Pinned(pin))?;
    let question = serde_json::to_vec(ask).map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
    write(&mut tls, &question).map_err(|e| broken(address, &e))?;
    tls.sock.set_read_timeout(Some(patience)).map_err(|e| broken(address, &e))?;
    let reply = read(&mut tls).map_err(|e| broken(address, &e))?;
    serde_json::from_slice(&reply).map_err(|e| {
        Diagnostic::new(Code::Damaged, format!("the controller's answer cannot be read: {e}")).hint("is it of the same version?").into()
    })
}

fn connect(address: &str, peer: &Peer) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let fault = |e: rustls::Error| Diagnostic::new(Code::Internal, format!("TLS cannot begin: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(fault)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier(peer.clone())))
        .with_no_client_auth();
    let name = ServerName::try_from("basalt").map_err(|e| Diagnostic::new(Code::Internal, e.to_string()))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(fault)?;
    let stream = addresses(address)?.into_iter().fold(None, |tried: Option<std::io::Result<TcpStream>>, address| match tried {
        Some(Ok(stream)) => Some(Ok(stream)),
        _ => Some(TcpStream::connect_timeout(&address, PATIENCE)),
    });
    let stream = match stream {
        Some(Ok(stream)) => stream,
        Some(Err(e)) => return Err(broken(address, &e)),
        None => return Err(Diagnostic::new(Code::Unreachable, format!("{address} has no address")).into()),
    };
    for set in [stream.set_read_timeout(Some(PATIENCE)), stream.set_write_timeout(Some(PATIENCE))] {
        set.map_err(|e| broken(address, &e))?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// `192.0.2.1`, `controller:4507`, `[2001:db8::1]:4506`.
fn addresses(text: &str) -> Result<Vec<SocketAddr>> {
    let with_port = match text.parse::<IpAddr>() {
        Ok(address) => return Ok(vec![SocketAddr::new(address, PORT)]),
        Err(_) if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => text.to_owned(),
        Err(_) => format!("{text}:{PORT}"),
    };
    let found = with_port.to_socket_addrs();
    found.map(Iterator::collect).map_err(|e| Diagnostic::new(Code::Unreachable, format!("{text} is not found: {e}")).into())
}

fn broken(address: &str, error: &std::io::Error) -> Box<Diagnostic> {
    let text = error.to_string();
    if text.contains(OTHER_KEY) {
        return Diagnostic::new(Code::HostKey, format!("the controller at {address} is not the one that the token is of"))
            .detail("Its key is another: this is another machine, or somebody is in between.")
            .hint("compare with what `basalt token create` prints on the controller")
            .into();
    }
    let listening = "is `basalt token create --listen` running there, and does the firewall let it through?";
    Diagnostic::new(Code::Unreachable, format!("the controller at {address} does not answer")).detail(text).hint(listening).into()
}

const OTHER_KEY: &str = "the controller has another key";

#[derive(Debug)]
struct Verifier(Peer);

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let seen = pin_of(key);
        match &self.0 {
            Peer::Pinned(pin) if *pin == seen => Ok(ServerCertVerified::assertion()),
            Peer::Pinned(_) => Err(rustls::Error::General(OTHER_KEY.to_owned())),
            Peer::Unknown(slot) => {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn read(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > LONGEST {
        return Err(std::io::Error::other(format!("a message of {length} bytes is too long")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn write(stream: &mut impl Write, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller that answers every question with the same.
    fn controller(reply: Reply) -> (Identity, String, mpsc::Receiver<Asked>, Reply) {
        let identity = Identity::of(&Identity::make().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, receiver) = mpsc::channel(4);
        serve(listener, &identity, sender);
        (identity, address, receiver, reply)
    }

    #[test]
    fn a_question_is_answered_over_a_key_that_is_known() {
        let (identity, address, mut receiver, reply) = controller(Reply::Refused { why: "no".into() });
        let answering = std::thread::spawn(move || {
            let asked = receiver.blocking_recv().unwrap();
            let from = asked.from;
            asked.reply.send(reply).ok();
            (asked.ask, from)
        });
        assert_eq!(fingerprint(&address).unwrap(), identity.pin);
        let question = Ask::Poll { ticket: "t".into() };
        assert_eq!(ask(&address, identity.pin, &question, PATIENCE).unwrap(), Reply::Refused { why: "no".into() });
        assert_eq!(answering.join().unwrap(), (question, IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn another_key_is_told_nothing() {
        let (_identity, address, mut receiver, _) = controller(Reply::Refused { why: "no".into() });
        let fault = ask(&address, [0; PIN], &Ask::Poll { ticket: "t".into() }, PATIENCE).unwrap_err();
        assert_eq!(fault.code, Code::HostKey, "{fault}");
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn what_is_no_controller_is_told_apart() {
        assert_eq!(fingerprint("127.0.0.1:1").unwrap_err().code, Code::Unreachable);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.0 400 no\r\n\r\n").unwrap();
        });
        assert!(fingerprint(&address).unwrap_err().summary.contains("is no controller"));
        other.join().unwrap();
    }

    #[test]
    fn nonsense_and_too_much_are_not_passed_on() {
        let (identity, address, mut receiver, _) = controller(Reply::Refused { why: "no".into() });
        let mut tls = connect(&address, &Peer::Pinned(identity.pin)).unwrap();
        write(&mut tls, b"{\"ask\": \"everything\"}").unwrap();
        let reply = String::from_utf8(read(&mut tls).unwrap()).unwrap();
        assert!(reply.contains("does not understand"), "{reply}");
        let mut tls = connect(&address, &Peer::Pinned(identity.pin)).unwrap();
        tls.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(read(&mut tls).is_err());
        // Bytes that are no TLS at all.
        TcpStream::connect(&address).unwrap().write_all(&[0; 300]).unwrap();
        assert!(receiver.try_recv().is_err());
    }
}
