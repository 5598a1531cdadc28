//! The run itself: workers, each with a connection, and what paces them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::cpu::CpuUse;
use crate::http::Connection;
use crate::operations::{Client, Done, Object, Step};
use crate::report::{OpReport, Report, latency_histogram};
use crate::sign::Signer;
use crate::{FailureKind, LoadError, Operation, Pace, Spec};

/// After a failure, a worker waits so long: a server that fails at once is not to be asked a million times, each on a new
/// connection.
const FAILED_PAUSE: Duration = Duration::from_millis(5);
/// After a failure to connect.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Tries of one object in [`Load::prepare`].
const PREPARE_TRIES_MAX: u32 = 3;
/// How often the pacer of an open loop looks at the clock, at least.
const PACER_STEP_MAX: Duration = Duration::from_micros(500);

/// A load generator for one specification.
pub struct Load {
    client: Arc<Client>,
    fleeting: Arc<Fleeting>,
}

/// Objects that are there to be deleted.
#[derive(Default)]
struct Fleeting {
    there: Mutex<Vec<u64>>,
    next: AtomicU64,
}

/// What a run counts, by operation.
struct Counts {
    operations: Vec<(Operation, Mutex<OpReport>)>,
}

impl Counts {
    fn new() -> Self {
        let report = |operation| OpReport {
            operation,
            ops: 0,
            bytes: 0,
            keys: 0,
            latency_us: latency_histogram(),
            failures: Default::default(),
        };
        Self { operations: Operation::ALL.map(|each| (each, Mutex::new(report(each)))).into() }
    }

    fn count(&self, operation: Operation, due: Instant, outcome: Result<Done, FailureKind>) {
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut report = self.operations[operation as usize].1.lock();
        match outcome {
            Ok(done) => {
                report.ops += 1;
                report.bytes += done.bytes;
                report.keys += done.keys;
                report.latency_us.saturating_record(micros.max(1));
            }
            Err(kind) => *report.failures.entry(kind).or_default() += 1,
        }
    }
}

/// When the next request is due.
struct Pacer {
    start: Instant,
    deadline: Instant,
    stop: CancellationToken,
    open: Option<OpenLoop>,
}

struct OpenLoop {
    per_second: f64,
    /// One permit for each request that is due and not taken.
    due: Semaphore,
    taken: AtomicU64,
    over: AtomicBool,
}

impl Pacer {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline || self.stop.is_cancelled()
    }

    /// When the next request was due, which is not later than now; `None` when there is none any more.
    async fn next(&self) -> Option<Instant> {
        let Some(open) = &self.open else { return (!self.is_over()).then(Instant::now) };
        open.due.acquire().await.ok()?.forget();
        if open.over.load(Ordering::Acquire) || self.is_over() {
            return None;
        }
        let number = open.taken.fetch_add(1, Ordering::Relaxed);
        Some(self.start + Duration::from_secs_f64(number as f64 / open.per_second))
    }

    /// Lets requests become due, on a thread of its own: timers of an async runtime are too coarse. Returns how many
    /// became due.
    fn drive(&self, open: &OpenLoop) -> u64 {
        let mut given = 0;
        while !self.is_over() {
            let due = (self.start.elapsed().as_secs_f64() * open.per_second) as u64 + 1;
            if due > given {
                open.due.add_permits((due - given) as usize);
                given = due;
            }
            let next = self.start + Duration::from_secs_f64(given as f64 / open.per_second);
            let wait = next.saturating_duration_since(Instant::now());
            std::thread::sleep(wait.min(PACER_STEP_MAX));
        }
        open.over.store(true, Ordering::Release);
        open.due.close();
        given
    }
}

struct Worker {
    rng: SmallRng,
    connection: Option<Connection>,
}

impl Load {
    /// A generator for this specification.
    ///
    /// # Errors
    /// [`LoadError::Spec`].
    pub fn new(spec: Spec) -> Result<Self, LoadError> {
        spec.check()?;
        let signer = Signer::new(spec.keys.clone(), spec.region.clone(), spec.endpoint.authority.clone());
        let client = Arc::new(Client { signer, content: Content::new(), spec });
        Ok(Self { client, fleeting: Arc::default() })
    }

    /// Makes the bucket and puts what the run reads, lists and deletes.
    ///
    /// # Errors
    /// [`LoadError::Prepare`] when one object failed three times.
    pub async fn prepare(&self) -> Result<(), LoadError> {
        let spec = &self.client.spec;
        let failed =
            |what: String, failure| LoadError::Prepare { what, failure, endpoint: spec.endpoint.authority.clone() };
        let what = || format!("making the bucket {}", spec.bucket);
        let mut connection =
            Connection::open(&spec.endpoint.authority, spec.stall_timeout).await.map_err(|f| failed(what(), f))?;
        self.client.make_bucket(&mut connection).await.map_err(|failure| failed(what(), failure))?;
        let weight = |operations: &[Operation]| operations.iter().any(|each| spec.mix.weight(*each) > 0);
        let kept = if weight(&[Operation::Get, Operation::Head, Operation::List]) { spec.objects } else { 0 };
        let fleeting = if weight(&[Operation::Delete]) { spec.objects } else { 0 };
        let next = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..spec.connections)
            .map(|_| {
                let (client, next) = (self.client.clone(), next.clone());
                tokio::spawn(async move {
                    let (mut connection, mut rng) = (None, SmallRng::seed_from_u64(0));
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let object = match number.checked_sub(kept) {
                            None => Object::Kept(number),
                            Some(rest) if rest < fleeting => Object::Fleeting(rest),
                            Some(_) => return Ok(()),
                        };
                        let mut tries = 0;
                        loop {
                            let outcome = perform(&client, &mut connection, &mut rng, Step::Put(object)).await;
                            match outcome {
                                Ok(_) => break,
                                Err(failure) => {
                                    tries += 1;
                                    if tries == PREPARE_TRIES_MAX {
                                        return Err((client.key(object), failure));
                                    }
                                    tokio::time::sleep(REFUSED_PAUSE).await;
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            let outcome = worker.await.unwrap_or_else(|_| Err(("a worker".to_owned(), FailureKind::Broken)));
            outcome.map_err(|(key, failure)| failed(format!("putting {key}"), failure))?;
        }
        self.fleeting.there.lock().extend(0..fleeting);
        self.fleeting.next.store(fleeting, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the objects that a run reads as files below `folder`, for a server of static files.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_files(&self, folder: &Path) -> std::io::Result<()> {
        use std::io::Write as _;
        for index in 0..self.client.spec.objects {
            let path = folder.join(&self.client.spec.bucket).join(self.client.key(Object::Kept(index)));
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            let (mut at, size) = (0, self.client.spec.sizes.of(index));
            while at < size {
                let piece = self.client.content.piece(index, at, size - at);
                file.write_all(&piece)?;
                at += piece.len() as u64;
            }
            file.flush()?;
        }
        Ok(())
    }

    /// Runs the mix: the warm-up, then what counts. `stop` ends it early; what was done until then is reported.
    ///
    /// # Errors
    /// [`LoadError::Cpu`].
    pub async fn run(&self, stop: &CancellationToken) -> Result<Report, LoadError> {
        let spec = &self.client.spec;
        let seeds = 0..spec.connections as u64;
        let mut workers: Vec<Worker> = seeds
            .map(|number| Worker { rng: SmallRng::seed_from_u64(spec.seed ^ number << 32), connection: None })
            .collect();
        if !spec.warm_up.is_zero() {
            (workers, _, _) = self.phase(workers, spec.warm_up, stop).await;
        }
        let cpu = CpuUse::start(&spec.server_pids)?;
        let begun = Instant::now();
        let (_workers, counts, not_sent) = self.phase(workers, spec.duration, stop).await;
        let seconds = begun.elapsed().as_secs_f64();
        let server_cpu_s = cpu.seconds();
        let operations = counts
            .operations
            .into_iter()
            .map(|(operation, report)| (operation, report.into_inner()))
            // Deletes that find nothing to delete put something first.
            .filter(|(operation, report)| {
                spec.mix.weight(*operation) > 0 || report.ops > 0 || !report.failures.is_empty()
            })
            .map(|(_, report)| report)
            .collect();
        Ok(Report { spec: spec.clone(), seconds, server_cpu_s, operations, not_sent, partial: stop.is_cancelled() })
    }

    async fn phase(
        &self,
        workers: Vec<Worker>,
        duration: Duration,
        stop: &CancellationToken,
    ) -> (Vec<Worker>, Counts, u64) {
        let start = Instant::now();
        let open = match self.client.spec.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(OpenLoop {
                per_second,
                due: Semaphore::new(0),
                taken: AtomicU64::new(0),
                over: AtomicBool::new(false),
            }),
        };
        let pacer = Arc::new(Pacer { start, deadline: start + duration, stop: stop.clone(), open });
        let driver = pacer.open.is_some().then(|| {
            let pacer = pacer.clone();
            std::thread::spawn(move || pacer.open.as_ref().map_or(0, |open| pacer.drive(open)))
        });
        let counts = Arc::new(Counts::new());
        let tasks: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let (client, fleeting) = (self.client.clone(), self.fleeting.clone());
                let (pacer, counts) = (pacer.clone(), counts.clone());
                tokio::spawn(async move {
                    while let Some(due) = pacer.next().await {
                        worker.step(&client, &fleeting, due, &counts).await;
                    }
                    worker
                })
            })
            .collect();
        let mut workers = Vec::with_capacity(tasks.len());
        for task in tasks {
            workers.push(task.await.expect("invariant: a worker does not panic"));
        }
        let given = driver.map_or(0, |driver| driver.join().expect("invariant: the pacer does not panic"));
        let taken = pacer.open.as_ref().map_or(0, |open| open.taken.load(Ordering::Relaxed));
        let counts = Arc::into_inner(counts).expect("invariant: all workers have ended");
        (workers, counts, given.saturating_sub(taken))
    }
}

impl Worker {
    async fn step(&mut self, client: &Client, fleeting: &Fleeting, due: Instant, counts: &Counts) {
        let step = self.choose(&client.spec, fleeting);
        let outcome = perform(client, &mut self.connection, &mut self.rng, step).await;
        counts.count(step.operation(), due, outcome);
        if let (Step::Put(Object::Fleeting(index)), Ok(_)) = (step, outcome) {
            fleeting.there.lock().push(index);
        }
        match outcome {
            Ok(_) => {}
            Err(FailureKind::Refused) => tokio::time::sleep(REFUSED_PAUSE).await,
            Err(_) => tokio::time::sleep(FAILED_PAUSE).await,
        }
    }

    fn choose(&mut self, spec: &Spec, fleeting: &Fleeting) -> Step {
        let index = self.rng.random_range(0..spec.objects);
        let fresh = || Step::Put(Object::Fleeting(fleeting.next.fetch_add(1, Ordering::Relaxed)));
        match spec.mix.pick(self.rng.random_range(0..spec.mix.sum())) {
            Operation::Put if spec.mix.weight(Operation::Delete) > 0 => fresh(),
            Operation::Put => Step::Put(Object::Kept(index)),
            Operation::Get => Step::Get(index),
            Operation::Head => Step::Head(index),
            Operation::List => Step::List,
            Operation::Delete => match fleeting.there.lock().pop() {
                Some(index) => Step::Delete(Object::Fleeting(index)),
                None => fresh(),
            },
        }
    }
}

/// Does it on a connection, which is opened if need be, and kept if it can be used again.
async fn perform(
    client: &Client,
    kept: &mut Option<Connection>,
    rng: &mut SmallRng,
    step: Step,
) -> Result<Done, FailureKind> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(&client.spec.endpoint.authority, client.spec.stall_timeout).await?,
    };
    let (done, keep) = match step {
        Step::Put(object) => client.put(&mut connection, object).await?,
        Step::Get(index) => client.get(&mut connection, index, rng).await?,
        Step::Head(index) => client.head(&mut connection, index).await?,
        Step::List => client.list(&mut connection, rng).await?,
        Step::Delete(object) => client.delete(&mut connection, object).await?,
    };
    if keep {
        *kept = Some(connection);
    }
    Ok(done)
}
