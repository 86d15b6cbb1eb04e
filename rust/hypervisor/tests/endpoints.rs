// SPDX-License-Identifier: GPL-3.0-or-later
//! Sinks and sources: guest pages go through sockets, pipes and files unharmed, a wait can be ended, and a descriptor
//! that cannot carry a stream is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected panics, and opens files itself"
)]

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use xenmig_hypervisor::{Access, ForeignPages, Hypervisor, PageBuffer, Piece, Sink, Source};
use xenmig_sim::{DomainConfig, SimDomain, SimHost};
use xenmig_types::{Gfn, PAGE_SIZE, PAGE_SIZE_U64, Pfn};

/// More pages than one gathered write takes, none next to another.
const PAGES: u64 = 1500;

/// Returns the configuration of a domain with this number of pages.
fn pages(pages: u64) -> DomainConfig {
    DomainConfig { memory_bytes: pages * PAGE_SIZE_U64, ..DomainConfig::default() }
}

/// Makes a domain on its own host.
fn domain(config: DomainConfig) -> (SimHost, Arc<SimDomain>) {
    let host = SimHost::new();
    let domain = host.create(config).unwrap();
    (host, domain)
}

/// Returns a page of a domain; `None` if there is none.
fn page(domain: &SimDomain, pfn: u64) -> Option<PageBuffer> {
    let mut page = [0; PAGE_SIZE];
    domain.read_page(Pfn(pfn), &mut page).ok().map(|()| page)
}

fn filled() -> (SimHost, Arc<SimDomain>) {
    let (host, domain) = domain(pages(2 * PAGES));
    domain.fill(5);
    (host, domain)
}

/// Maps the pfns 0, 2, 4, ...
fn map_every_other(host: &SimHost, domain: &SimDomain, access: Access) -> ForeignPages {
    let gfns: Vec<Gfn> = (0..PAGES).map(|i| Gfn(2 * i)).collect();
    host.map(domain.domid(), &gfns, access).unwrap()
}

fn set_send_buffer(socket: &UnixStream, bytes: libc::c_int) {
    // SAFETY: an int and its length, both borrowed for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

/// Sends pages of one domain to the same pfns of another, with bytes before and after.
fn transfer(out: RawFd, back: RawFd) {
    let (host, from) = filled();
    let to = host.create(pages(2 * PAGES)).unwrap();
    let mut sink = Sink::new(out).unwrap();
    let mut source = Source::new(back).unwrap();
    let last = PAGES as usize;
    let sender = {
        let sent = map_every_other(&host, &from, Access::Read);
        thread::spawn(move || {
            let (head, tail) = ([1; 13], [2; 7]);
            let pieces = [
                Piece::Bytes(&head),
                Piece::Pages(&sent, 0..700),
                Piece::Bytes(&[]),
                Piece::Pages(&sent, 700..last),
                Piece::Bytes(&tail),
            ];
            sink.write(&pieces, &mut |_| true).unwrap();
            sink.written()
        })
    };
    let received = map_every_other(&host, &to, Access::Write);
    let (mut head, mut tail) = ([0; 13], [0; 7]);
    source.read_exact(&mut head, &mut |_| true).unwrap();
    source.read_pages(&received, 0..3, &mut |_| true).unwrap();
    source.read_pages(&received, 3..last, &mut |_| true).unwrap();
    source.read_exact(&mut tail, &mut |_| true).unwrap();
    assert_eq!((head, tail), ([1; 13], [2; 7]));
    assert_eq!(sender.join().unwrap(), source.read());
    assert_eq!(source.read(), PAGES * PAGE_SIZE as u64 + 20);
    for pfn in 0..2 * PAGES {
        let expected = if pfn % 2 == 0 { page(&from, pfn).unwrap() } else { [0; PAGE_SIZE] };
        assert!(page(&to, pfn).unwrap() == expected, "pfn {pfn}");
    }
}

#[test]
fn pages_go_through_a_socket() {
    let (out, back) = UnixStream::pair().unwrap();
    transfer(out.as_raw_fd(), back.as_raw_fd());
}

#[test]
fn pages_go_through_a_socket_that_takes_little_at_a_time() {
    let (out, back) = UnixStream::pair().unwrap();
    set_send_buffer(&out, 1);
    transfer(out.as_raw_fd(), back.as_raw_fd());
}

#[test]
fn pages_go_through_a_socket_whose_owner_made_it_nonblocking() {
    let (out, back) = UnixStream::pair().unwrap();
    out.set_nonblocking(true).unwrap();
    back.set_nonblocking(true).unwrap();
    transfer(out.as_raw_fd(), back.as_raw_fd());
}

#[test]
fn pages_go_through_a_pipe() {
    let (back, out) = io::pipe().unwrap();
    transfer(out.as_raw_fd(), back.as_raw_fd());
}

#[test]
fn pages_go_into_a_file_at_its_position() {
    let (host, domain) = filled();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before").unwrap();
    let mapped = map_every_other(&host, &domain, Access::Read);
    let mut sink = Sink::new(file.as_raw_fd()).unwrap();
    sink.write(&[Piece::Bytes(b"head"), Piece::Pages(&mapped, 1..3)], &mut |_| true).unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let expected =
        [b"beforehead".as_slice(), &page(&domain, 2).unwrap(), &page(&domain, 4).unwrap()].concat();
    assert!(bytes == expected);
}

#[test]
fn the_caller_may_close_its_own_descriptor() {
    let (out, mut back) = UnixStream::pair().unwrap();
    let mut sink = Sink::new(out.as_raw_fd()).unwrap();
    drop(out);
    sink.write(&[Piece::Bytes(b"still open")], &mut |_| true).unwrap();
    drop(sink);
    let mut bytes = Vec::new();
    back.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"still open");
}

#[test]
fn a_wait_ends_when_the_caller_says_no() {
    let (host, domain) = filled();
    let mapped = map_every_other(&host, &domain, Access::Write);
    let (out, back) = UnixStream::pair().unwrap();
    let mut sink = Sink::new(out.as_raw_fd()).unwrap();
    let mut source = Source::new(out.as_raw_fd()).unwrap();
    let mut asked = 0;
    let mut twice = |_| {
        asked += 1;
        asked % 3 != 0
    };
    let start = Instant::now();
    let results = [
        sink.write(&[Piece::Pages(&mapped, 0..PAGES as usize)], &mut twice),
        source.read_exact(&mut [0; 10], &mut twice),
        source.read_pages(&mapped, 0..1, &mut twice),
    ];
    for result in results {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    }
    assert_eq!(asked, 9);
    assert!(start.elapsed() < Duration::from_secs(5), "asked too seldom: {:?}", start.elapsed());
    // What was written before is counted, and was really written.
    let written = sink.written();
    drop((out, sink, source));
    let mut bytes = Vec::new();
    (&back).read_to_end(&mut bytes).unwrap();
    assert!(written > 0 && bytes.len() as u64 == written);
}

#[test]
fn the_other_end_that_is_gone_is_an_error() {
    let (out, back) = UnixStream::pair().unwrap();
    (&out).write_all(b"abc").unwrap();
    let mut source = Source::new(back.as_raw_fd()).unwrap();
    let mut sink = Sink::new(back.as_raw_fd()).unwrap();
    drop(out);
    let error = source.read_exact(&mut [0; 4], &mut |_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(source.read(), 3);
    let error = sink.write(&[Piece::Bytes(b"abc")], &mut |_| true).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    assert_eq!(sink.written(), 0);
}

#[test]
fn a_full_disk_is_an_error_and_the_bin_takes_everything() {
    let (host, domain) = filled();
    let mapped = map_every_other(&host, &domain, Access::Read);
    let write = |path: &str| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        let mut sink = Sink::new(file.as_raw_fd()).unwrap();
        sink.write(&[Piece::Pages(&mapped, 0..PAGES as usize)], &mut |_| true).map(|()| sink.written())
    };
    assert_eq!(write("/dev/full").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(write("/dev/null").unwrap(), PAGES * PAGE_SIZE as u64);
}

#[test]
fn pages_that_are_not_mapped_for_it_are_a_fault_before_a_byte_is_moved() {
    let (host, domain) = domain(DomainConfig { holes: std::iter::once(1..2).collect(), ..pages(4) });
    let map = |access| host.map(domain.domid(), &[Gfn(0), Gfn(1)], access).unwrap();
    let (out, back) = UnixStream::pair().unwrap();
    let mut sink = Sink::new(out.as_raw_fd()).unwrap();
    let mut source = Source::new(back.as_raw_fd()).unwrap();
    let fault = |result: io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    for range in [0..2, 1..2, 2..3] {
        fault(sink.write(&[Piece::Bytes(b"head"), Piece::Pages(&map(Access::Read), range)], &mut |_| true));
    }
    assert_eq!(sink.written(), 0);
    sink.write(&[Piece::Pages(&map(Access::Read), 0..1)], &mut |_| true).unwrap();
    fault(source.read_pages(&map(Access::Write), 0..2, &mut |_| true));
    fault(source.read_pages(&map(Access::Read), 0..1, &mut |_| true));
    assert_eq!(source.read(), 0);
    source.read_pages(&map(Access::Write), 0..1, &mut |_| true).unwrap();
}

#[test]
fn descriptors_that_cannot_carry_a_stream_are_refused() {
    let sink = |fd| Sink::new(fd).map(drop).map_err(|error| error.raw_os_error().unwrap());
    let source = |fd| Source::new(fd).map(drop).map_err(|error| error.raw_os_error().unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(file.path()).unwrap();
    let write_only = OpenOptions::new().write(true).open(file.path()).unwrap();
    assert_eq!((sink(read_only.as_raw_fd()), source(read_only.as_raw_fd())), (Err(libc::EBADF), Ok(())));
    assert_eq!((sink(write_only.as_raw_fd()), source(write_only.as_raw_fd())), (Ok(()), Err(libc::EBADF)));
    let (pipe_out, pipe_in) = io::pipe().unwrap();
    assert_eq!(
        (sink(pipe_out.as_raw_fd()), source(pipe_in.as_raw_fd())),
        (Err(libc::EBADF), Err(libc::EBADF))
    );
    let directory = File::open("/").unwrap();
    assert_eq!(source(directory.as_raw_fd()), Err(libc::EISDIR));
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    assert_eq!(
        (sink(datagram.as_raw_fd()), source(datagram.as_raw_fd())),
        (Err(libc::EPROTOTYPE), Err(libc::EPROTOTYPE))
    );
    // SAFETY: makes a descriptor that is none of the kinds.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert_eq!((sink(event), source(event)), (Err(libc::EINVAL), Err(libc::EINVAL)));
    // SAFETY: the descriptor is this test's own.
    assert_eq!(unsafe { libc::close(event) }, 0);
    for fd in [-1, RawFd::MIN, 1 << 20] {
        assert_eq!((sink(fd), source(fd)), (Err(libc::EBADF), Err(libc::EBADF)), "{fd}");
    }
}

#[test]
fn a_socket_has_its_own_timeouts_back_in_the_end() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let own = Some(Duration::from_secs(7));
    ours.set_read_timeout(own).unwrap();
    let (sink, source) = (Sink::new(ours.as_raw_fd()).unwrap(), Source::new(ours.as_raw_fd()).unwrap());
    assert_eq!(ours.write_timeout().unwrap(), Some(Duration::from_millis(100)));
    assert_eq!(ours.read_timeout().unwrap(), Some(Duration::from_millis(100)));
    drop((sink, source));
    assert_eq!((ours.write_timeout().unwrap(), ours.read_timeout().unwrap()), (None, own));
}

#[test]
fn a_unix_socket_has_its_own_buffer_back_in_the_end() {
    let buffer = |socket: &UnixStream| {
        // Filled to see how much it takes: the standard library cannot ask.
        socket.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while let Ok(bytes) = (&*socket).write(&[0; 4096]) {
            taken += bytes;
        }
        taken
    };
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let sink = Sink::new(ours.as_raw_fd()).unwrap();
    let enlarged = buffer(&ours);
    drop(sink);
    let (plain, _theirs) = UnixStream::pair().unwrap();
    drop(Sink::new(plain.as_raw_fd()).unwrap());
    let (untouched, _theirs) = UnixStream::pair().unwrap();
    assert_eq!(buffer(&plain), buffer(&untouched));
    assert!(enlarged > buffer(&untouched), "{enlarged}");
}

/// Writes into a pipe without readers, and returns the error. Runs in a child with SIGPIPE at its default, which would
/// kill it.
fn broken_pipe(sink: &mut Sink) -> ErrorKind {
    sink.write(&[Piece::Bytes(&[1; 100])], &mut |_| true).unwrap_err().kind()
}

/// Has `check` run in a child process whose SIGPIPE is at its default, and returns whether it said yes and lived.
fn holds_with_default_sigpipe(check: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only makes system calls and writes to its own memory until it ends.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: sets a disposition.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let status = if check() { 0 } else { 1 };
            // SAFETY: ends the child without running what the test's process would.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = -1;
            // SAFETY: our own child, and where its status goes.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            status == 0
        }
    }
}

#[test]
fn a_broken_pipe_is_an_error_and_raises_no_signal() {
    let (reader, writer) = io::pipe().unwrap();
    let mut sink = Sink::new(writer.as_raw_fd()).unwrap();
    drop(reader);
    assert!(holds_with_default_sigpipe(|| broken_pipe(&mut sink) == ErrorKind::BrokenPipe));
    assert_eq!(broken_pipe(&mut sink), ErrorKind::BrokenPipe);
}

#[test]
fn a_signal_that_was_pending_stays_so_and_one_that_was_not_does_not() {
    let (reader, writer) = io::pipe().unwrap();
    let mut sink = Sink::new(writer.as_raw_fd()).unwrap();
    drop(reader);
    assert!(holds_with_default_sigpipe(|| {
        let pending = || {
            // SAFETY: a set of zeroes is empty.
            let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
            // SAFETY: a set that is filled.
            unsafe { libc::sigpending(&raw mut set) };
            // SAFETY: a set, and a signal's number.
            unsafe { libc::sigismember(&raw const set, libc::SIGPIPE) == 1 }
        };
        // SAFETY: a set of zeroes is empty.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: a set, and a signal's number.
        unsafe { libc::sigaddset(&raw mut set, libc::SIGPIPE) };
        // SAFETY: blocks the signal in this process, which has one thread.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        let blocked = broken_pipe(&mut sink) == ErrorKind::BrokenPipe && !pending();
        // SAFETY: a signal to this process itself.
        unsafe { libc::raise(libc::SIGPIPE) };
        blocked && broken_pipe(&mut sink) == ErrorKind::BrokenPipe && pending()
    }));
}
