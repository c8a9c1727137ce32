//! A receiver on a real socket: everything that arrives goes through the [`Model`]; a script says
//! what is answered.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    alphabet::{Doing, Ending, Program, Word},
    http::{Message, read_body, read_head},
    model::{Arrival, Change, Model},
    patience::{SOON, eventually},
    project::Tree,
};

/// The signing key of every app of the stories.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Takes it in and says 200.
    Accept,
    /// The same, after a while.
    AcceptAfter(Duration),
    /// Takes in those changes of a batch for which this is true, and says so of each.
    Each(Vec<bool>),
    /// Takes nothing in and says this.
    Refuse(u16),
    /// Takes nothing in and says exactly these bytes.
    Say(Vec<u8>),
    /// Takes it in and hangs up without a word.
    AcceptAndVanish,
    /// Takes nothing in and hangs up in the middle of its answer.
    Vanish,
    /// Says nothing until the other side gives up.
    Hang,
    /// Says a 200 whose body comes a byte a second.
    Drip,
    /// Takes it in and says a 200 whose body does not end.
    Flood,
    /// Waits until the gate opens; takes it in only if the other side still waits.
    Wait(Arc<Gate>),
    /// What a program says.
    Do(Doing),
}

type Script = Box<dyn FnMut(&Arrival) -> Answer + Send>;

/// Something that opens once.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicU64,
}

impl Gate {
    /// Opens it for everyone, for ever.
    pub(crate) fn open(&self) {
        *locked(&self.open) = true;
        self.opened.notify_all();
    }

    /// How many wait or waited at it.
    pub(crate) fn arrived(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst)
    }

    fn pass(&self, stopped: &AtomicBool) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = locked(&self.open);
        while !*open && !stopped.load(Ordering::SeqCst) {
            let waited = self.opened.wait_timeout(open, Duration::from_millis(50));
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Shared {
    model: Mutex<Model>,
    script: Mutex<Script>,
    stopped: AtomicBool,
    /// One request in this many is reset before its body is read; 0: none.
    resets: AtomicU64,
    heads: AtomicU64,
    flooded: AtomicU64,
    connections: AtomicU64,
}

/// A receiver that holds every delivery against the model of what is promised.
pub(crate) struct Subscriber {
    address: SocketAddr,
    /// Another address of the same receiver.
    second: Option<SocketAddr>,
    shared: Arc<Shared>,
}

impl Subscriber {
    /// Listens on a port of its own and accepts everything.
    pub(crate) fn start() -> Self {
        Self::start_with(KEY)
    }

    /// The same for an app whose deliveries are signed with this key.
    pub(crate) fn start_with(key: &str) -> Self {
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(key)),
            script: Mutex::new(Box::new(|_| Answer::Accept)),
            stopped: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            heads: AtomicU64::new(0),
            flooded: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        Self { address: open_door(&shared), second: None, shared }
    }

    /// The same with a second address.
    pub(crate) fn start_with_two_doors() -> Self {
        let mut subscriber = Self::start();
        subscriber.second = Some(open_door(&subscriber.shared));
        subscriber
    }

    /// The `base_url` of this receiver.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The second address at which it receives.
    pub(crate) fn second_url(&self) -> String {
        format!("http://{}", self.second.expect("it has two doors"))
    }

    /// The address that this receiver listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this decides.
    pub(crate) fn script(&self, script: impl FnMut(&Arrival) -> Answer + Send + 'static) {
        *locked(&self.shared.script) = Box::new(script);
    }

    /// From now on this program decides; it may be changed at any time.
    pub(crate) fn follow(&self, program: &Program) {
        let program = program.clone();
        self.script(move |arrival| Answer::Do(program.next(arrival)));
    }

    /// From now on everything is accepted.
    pub(crate) fn accept_all(&self) {
        self.shared.resets.store(0, Ordering::SeqCst);
        self.script(|_| Answer::Accept);
    }

    /// Resets one connection in this many before the body was read.
    pub(crate) fn reset_one_in(&self, times: u64) {
        self.shared.resets.store(times, Ordering::SeqCst);
    }

    /// Accepts `count` more changes; the next ones wait at the gate.
    pub(crate) fn hold_after(&self, count: u64) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        let (at, mut left) = (gate.clone(), count);
        self.script(move |_| {
            if left > 0 {
                left -= 1;
                Answer::Accept
            } else {
                Answer::Wait(at.clone())
            }
        });
        gate
    }

    /// The model of this receiver, locked.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        locked(&self.shared.model)
    }

    /// What it has of a watch.
    pub(crate) fn mirror(&self, repository: &str) -> Tree {
        self.model().mirrors.get(repository).cloned().unwrap_or_default()
    }

    /// Waits until the model looks like this.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Model) -> Option<T>) -> T {
        eventually(what, SOON, || look(&self.model()))
    }

    /// Waits until it has exactly this of a watch.
    pub(crate) fn wait_for_tree(&self, repository: &str, tree: &Tree) {
        let same =
            |model: &Model| model.mirrors.get(repository).map_or(tree.is_empty(), |mirror| mirror == tree);
        let until = std::time::Instant::now() + SOON;
        while !same(&self.model()) {
            if std::time::Instant::now() > until {
                self.assert_faultless();
                assert_eq!(show(&self.mirror(repository)), show(tree), "the mirror of {repository}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything so far was as promised.
    pub(crate) fn assert_faultless(&self) {
        let model = self.model();
        assert!(
            model.faults.is_empty(),
            "{} faults: {:#?}",
            model.faults.len(),
            &model.faults[..model.faults.len().min(20)]
        );
    }

    /// Everything was as promised, no round was left, nothing was created twice or deleted unseen.
    pub(crate) fn assert_straight(&self) {
        self.assert_faultless();
        let model = self.model();
        assert!(model.surprises.is_empty(), "surprises: {:#?}", model.surprises);
        assert!(model.left.is_empty(), "rounds were left before their end: {:?}", model.left);
    }

    /// Connections that were made to it.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes that a flood got rid of.
    pub(crate) fn flooded(&self) -> u64 {
        self.shared.flooded.load(Ordering::SeqCst)
    }

    /// The paths of the changes taken in so far, with what happened to them.
    pub(crate) fn applied(&self) -> Vec<(String, String)> {
        let told =
            |change: &Change| (change.action.clone(), String::from_utf8_lossy(&change.path).into_owned());
        self.model().applied.iter().map(told).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting threads, so that they see that it is over.
        for address in self.second.into_iter().chain([self.address]) {
            drop(TcpStream::connect(address));
        }
    }
}

/// Accepts connections at a port of its own.
fn open_door(shared: &Arc<Shared>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let at_the_door = shared.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if at_the_door.stopped.load(Ordering::SeqCst) {
                return;
            }
            at_the_door.connections.fetch_add(1, Ordering::SeqCst);
            let shared = at_the_door.clone();
            thread::spawn(move || serve(stream, &shared));
        }
    });
    address
}

/// A tree that can be read in a failed assertion.
pub(crate) fn show(tree: &Tree) -> Vec<String> {
    let line = |(path, facts): (&Vec<u8>, &super::project::FileFacts)| {
        format!("{} {} {}", facts.mode, &facts.sha[..8.min(facts.sha.len())], String::from_utf8_lossy(path))
    };
    tree.iter().map(line).collect()
}

fn serve(stream: TcpStream, shared: &Shared) {
    // A connection that breaks is one of the things that happen to receivers.
    drop(converse(stream, shared));
}

fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(512, stream.try_clone()?);
    let mut stream = stream;
    while let Some((first_line, headers)) = read_head(&mut reader)? {
        let resets = shared.resets.load(Ordering::SeqCst);
        let number = shared.heads.fetch_add(1, Ordering::SeqCst);
        if resets > 0 && number % resets == resets - 1 {
            // A socket that is closed with bytes unread answers with a reset.
            return Ok(());
        }
        let mut message = Message { first_line, headers, body: Vec::new() };
        message.body = read_body(&mut reader, &message, false)?;
        let arrival = locked(&shared.model).arrive(&message);
        let Some(arrival) = arrival else {
            stream.write_all(&status(400))?;
            continue;
        };
        let answer = (locked(&shared.script))(&arrival);
        if !give(&mut stream, &mut reader, shared, &arrival, answer)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the connection goes on.
fn give(
    stream: &mut TcpStream,
    reader: &mut BufReader<TcpStream>,
    shared: &Shared,
    arrival: &Arrival,
    answer: Answer,
) -> io::Result<bool> {
    let mut each = Vec::new();
    match answer {
        Answer::Accept => {}
        Answer::Each(taken) => each = taken,
        Answer::AcceptAfter(wait) => thread::sleep(wait),
        Answer::Wait(gate) => gate.pass(&shared.stopped),
        Answer::Do(Doing::All(Word::Accept)) => {}
        Answer::Do(doing) => return act(stream, reader, shared, arrival, doing),
        Answer::Refuse(code) => {
            stream.write_all(&status(code))?;
            return Ok(true);
        }
        Answer::Say(bytes) => {
            stream.write_all(&bytes)?;
            return Ok(false);
        }
        Answer::AcceptAndVanish => {
            locked(&shared.model).apply(arrival);
            return Ok(false);
        }
        Answer::Vanish => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?;
            return Ok(false);
        }
        Answer::Hang => {
            drop(reader.fill_buf());
            return Ok(false);
        }
        Answer::Drip => return drip(stream, shared).map(|()| false),
        Answer::Flood => {
            {
                let mut model = locked(&shared.model);
                model.apply(arrival);
                model.acknowledged(arrival);
            }
            return flood(stream, shared).map(|()| false);
        }
    }
    {
        let mut model = locked(&shared.model);
        // A sender that is dead gets no answer, so this was no acknowledgement.
        if has_gone(stream)? {
            return Ok(false);
        }
        // Noted before the bytes leave: the next request must not overtake the note.
        if let (Arrival::Batch(changes), false) = (arrival, each.is_empty()) {
            let words = model.take_some(changes, &each).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", words.len());
            drop(model);
            stream.write_all((head + &words).as_bytes())?;
            return Ok(true);
        }
        model.apply(arrival);
        model.acknowledged(arrival);
    }
    stream.write_all(&status(200))?;
    Ok(true)
}

/// Does what a program says, and is no plain 200. Whether the connection goes on.
fn act(
    stream: &mut TcpStream,
    reader: &mut BufReader<TcpStream>,
    shared: &Shared,
    arrival: &Arrival,
    doing: Doing,
) -> io::Result<bool> {
    let turned_down = |is_applied: bool| {
        let mut model = locked(&shared.model);
        if is_applied {
            model.apply(arrival);
        }
        model.turned_down(arrival);
    };
    match (doing, arrival) {
        (Doing::Each(words), Arrival::Batch(changes)) => {
            let mut model = locked(&shared.model);
            if has_gone(stream)? {
                return Ok(false);
            }
            let words = model.take_by_word(changes, &words).to_string();
            drop(model);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", words.len());
            stream.write_all((head + &words).as_bytes())?;
            Ok(true)
        }
        (Doing::Each(_), _) | (Doing::All(Word::Accept), _) => unreachable!("no batch, or answered before"),
        (Doing::All(Word::Refuse(code)), _) => {
            turned_down(false);
            stream.write_all(&status(code))?;
            Ok(true)
        }
        (Doing::All(Word::Apply(Ending::Status(code))), _) => {
            turned_down(true);
            stream.write_all(&status(code))?;
            Ok(true)
        }
        (Doing::All(Word::Apply(Ending::Silence)), _) => {
            turned_down(true);
            drop(reader.fill_buf());
            Ok(false)
        }
        (Doing::All(Word::Apply(Ending::Reset)), _) => {
            turned_down(true);
            // Closed at once, whatever was sent meanwhile is lost.
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            Ok(false)
        }
        (Doing::All(Word::Apply(Ending::Late(wait))), _) => {
            turned_down(true);
            thread::sleep(wait);
            let mut model = locked(&shared.model);
            if has_gone(stream)? {
                return Ok(false);
            }
            model.acknowledged(arrival);
            drop(model);
            stream.write_all(&status(200))?;
            Ok(true)
        }
    }
}

fn drip(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")?;
    while !shared.stopped.load(Ordering::SeqCst) {
        stream.write_all(b".")?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn flood(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n")?;
    let block = vec![b'x'; 1 << 16];
    while !shared.stopped.load(Ordering::SeqCst) {
        stream.write_all(&block)?;
        shared.flooded.fetch_add(block.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn has_gone(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let gone = match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false)?;
    Ok(gone)
}

fn status(code: u16) -> Vec<u8> {
    format!("HTTP/1.1 {code} said so\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
