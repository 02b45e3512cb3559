use mainstay_testkit::logind::FakeLogind;

use super::*;

struct Watched {
    logind: FakeLogind,
    lock: Lock,
    hears: mpsc::UnboundedReceiver<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watched {
    fn new(logind: FakeLogind, wanted: u64) -> Self {
        let lock = Lock::default();
        let (heard, hears) = mpsc::unbounded_channel();
        let watch = Watch {
            bus: logind.bus(),
            settings: logind.settings(),
            wanted: Duration::from_secs(wanted),
            lock: lock.clone(),
            heard,
        };
        let thread = Some(std::thread::spawn(move || watch.run()));
        Self { logind, lock, hears, thread }
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&FakeLogind) -> bool) {
        assert!(self.logind.until(holds), "{what}: {:?}", self.logind.calls());
    }

    fn next(&mut self) -> bool {
        self.hears.blocking_recv().unwrap()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.hears.close();
        // It wakes from what it waits for, and sees that nobody hears it.
        self.logind.cut();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_shutdown_is_heard_of_and_waits_for_the_lock() {
    let mut watched = Watched::new(FakeLogind::start().unwrap(), 5);
    watched.until("it is locked", |logind| logind.locks() == 1);
    // Whoever is on the bus may say so, and is not believed.
    watched.logind.forge(true);
    watched.logind.prepare(true);
    assert!(watched.next());
    assert_eq!(watched.logind.locks(), 1);
    watched.lock.release();
    assert_eq!(watched.logind.locks(), 0);
    // It is called off, and the next one is waited for.
    watched.logind.forge(true);
    watched.logind.prepare(false);
    assert!(!watched.next());
    assert_eq!(watched.logind.locks(), 1);
    // It waits long enough, so that nothing was set.
    assert!(!watched.logind.settings().exists());
    assert!(!watched.logind.calls().contains(&"KillUnit".to_owned()));
}

#[test]
fn logind_is_told_to_wait_longer_if_it_would_not() {
    let watched = Watched::new(FakeLogind::start().unwrap(), 90);
    watched.until("it is locked", |logind| logind.locks() == 1);
    assert_eq!(watched.logind.delay(), Duration::from_secs(90));
    let text = std::fs::read_to_string(watched.logind.settings()).unwrap();
    assert!(text.ends_with("[Login]\nInhibitDelayMaxSec=90\n"), "{text}");
}

#[test]
fn a_connection_that_breaks_is_made_anew_and_a_shutdown_meanwhile_is_not_missed() {
    let mut watched = Watched::new(FakeLogind::start().unwrap(), 5);
    watched.until("it is locked", |logind| logind.locks() == 1);
    watched.logind.cut();
    watched.logind.prepare(true);
    assert!(watched.next());
    // The lock from before still holds.
    assert_eq!(watched.logind.locks(), 1);
}

#[test]
fn a_logind_that_refuses_is_asked_again() {
    let logind = FakeLogind::start().unwrap();
    logind.refuse(true);
    let watched = Watched::new(logind, 5);
    let refused = |logind: &FakeLogind| {
        logind.calls().iter().filter(|it| *it == "Inhibit").count() >= 2 && logind.locks() == 0
    };
    watched.until("it is asked twice", refused);
    watched.logind.refuse(false);
    watched.until("it is locked", |logind| logind.locks() == 1);
}
