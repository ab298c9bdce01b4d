//! What programs do, may and may not, with those of any host.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::unistd::{Uid, User};
use tokio::time::sleep;

use super::*;
use crate::questions::tests::{Hung, PATIENCE};

/// The name of who runs the tests.
pub fn own_name() -> String {
    let own = User::from_uid(Uid::effective()).ok().flatten();
    own.expect("who runs the tests has a name").name
}

/// Users that the runner of [`counting`] has looked up.
pub static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);

/// A runner that counts how often it looks up a user.
pub fn counting() -> Runner {
    let look_up = |name: &str| {
        LOOKED_UP.fetch_add(1, Ordering::Relaxed);
        Identity::of(name)
    };
    Runner::with(1, look_up, start)
}

fn program(command: &[&str]) -> Program {
    Program {
        command: command.iter().map(ToString::to_string).collect(),
        environment: Vec::new(),
        user: own_name(),
    }
}

fn script(text: &str) -> Program {
    program(&["/bin/sh", "-c", text])
}

async fn run(program: &Program, within: Duration) -> Result<Ran, NotRun> {
    let given = [("VIPD_SERVICE", "web".to_owned())];
    Runner::new(1).run(program, &given, within).await
}

/// Whether a process of that number is there and not dead.
fn lives(number: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(number).join("stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

#[tokio::test]
async fn how_a_program_ends_is_told_with_what_it_said() {
    let cases = [
        ("exit 0", "exit code 0"),
        ("echo fine", "exit code 0: fine"),
        ("echo no answer >&2; exit 3", "exit code 3: no answer"),
        (
            "printf 'two\\n  lines\\033[1m\\n'",
            "exit code 0: two lines [1m",
        ),
        ("kill -SEGV $$", "killed by signal 11"),
        ("exec >&- 2>&-; exit 4", "exit code 4"),
    ];
    for (text, expected) in cases {
        let ran = run(&script(text), PATIENCE).await;
        let ran = ran.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(ran.to_string(), expected, "{text}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_and_who_cannot_be_are_told_apart() {
    let missing = run(&program(&["/no/such/program"]), PATIENCE).await;
    let words = "cannot start /no/such/program: No such file or directory (os error 2)";
    assert_eq!(missing, Err(NotRun::Unstartable(words.to_owned())));
    let mut nobody = script("exit 0");
    "no-such-user".clone_into(&mut nobody.user);
    let words = "there is no user no-such-user on this host".to_owned();
    assert_eq!(run(&nobody, PATIENCE).await, Err(NotRun::Unable(words)));
}

#[tokio::test]
async fn a_program_sees_no_shell_and_nothing_of_ours() {
    let literal = run(&program(&["/bin/echo", "$HOME; `id`", "*"]), PATIENCE).await;
    assert_eq!(literal.unwrap().output, "$HOME; `id` *");
    let mut asked =
        script("pwd; env | grep -Ev '^(_|PWD|OLDPWD|SHLVL)=' | sort; ls /proc/self/fd; ulimit -n");
    asked.environment = vec![("COLOUR".to_owned(), "red".to_owned())];
    // Left open by somebody who started us.
    let open = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let ran = run(&asked, PATIENCE).await.unwrap();
    // What lists its own files has one more for that.
    let expected = format!("/ COLOUR=red PATH={PATH} VIPD_SERVICE=web 0 1 2 3 1024");
    assert_eq!(ran.output, expected);
}

#[tokio::test]
async fn a_program_has_no_capabilities_and_gains_none() {
    let text = "grep -E 'CapInh|CapPrm|CapEff|CapAmb|NoNew' /proc/self/status | cut -f2 | uniq";
    let ran = run(&script(text), PATIENCE).await.unwrap();
    assert_eq!(ran.output, "0000000000000000 1");
}

#[tokio::test]
async fn at_the_end_of_its_time_the_whole_group_is_killed() {
    let started = Instant::now();
    let asleep = script("sleep 600 & echo $!; sleep 600");
    let ran = run(&asleep, Duration::from_secs(3)).await.unwrap();
    assert_eq!(ran.ending, Ending::TimedOut);
    assert!(started.elapsed() < PATIENCE, "it waited for the sleepers");
    wait_until_dead(&ran.output).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let ran = run(&script("sleep 600 & echo $!"), PATIENCE).await.unwrap();
    assert_eq!(ran.ending, Ending::Exited(0));
    wait_until_dead(&ran.output).await;
}

#[tokio::test]
async fn a_program_that_nobody_waits_for_any_more_is_killed() {
    let place = std::env::temp_dir().join(format!("vipd-run-{}", process::id()));
    let text = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; sleep 600",
        place.display()
    );
    let asleep = script(&text);
    let running = run(&asleep, PATIENCE);
    let number = async {
        loop {
            match fs::read_to_string(&place) {
                Ok(number) => return number.trim().to_owned(),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let number = tokio::select! {
        number = number => number,
        ran = running => panic!("it has ended: {ran:?}"),
    };
    wait_until_dead(&number).await;
    fs::remove_file(place).unwrap();
}

async fn wait_until_dead(number: &str) {
    let deadline = Instant::now() + PATIENCE;
    while lives(number) {
        assert!(Instant::now() < deadline, "process {number} lives on");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_it_says_is_bounded_and_never_makes_it_wait() {
    let endless = run(&script("yes | head -c 10000000; exit 7"), PATIENCE).await;
    let ran = endless.unwrap();
    assert_eq!(ran.ending, Ending::Exited(7));
    assert_eq!(ran.output.len(), OUTPUT_MAX - 1, "{}", ran.output);
}

#[tokio::test]
async fn who_finds_no_room_has_not_been_run() {
    let runner = Runner::new(1);
    let short = Duration::from_millis(300);
    let asleep = script("sleep 600");
    let long = runner.run(&asleep, &[], 10 * short);
    let exit = script("exit 0");
    let crowded = async {
        sleep(short / 2).await;
        runner.run(&exit, &[], short).await
    };
    let (first, second) = tokio::join!(long, crowded);
    assert_eq!(first.unwrap().ending, Ending::TimedOut);
    let words = "1 programs run already, and none of them came to its end".to_owned();
    assert_eq!(second, Err(NotRun::Unable(words)));
    let after = runner.run(&exit, &[], PATIENCE).await;
    assert_eq!(
        after.unwrap().ending,
        Ending::Exited(0),
        "there is room again"
    );
}

/// Room comes late, and by then there is little time left.
#[tokio::test]
async fn who_waits_for_room_has_no_more_time_for_it_and_is_not_to_blame() {
    let runner = Runner::new(1);
    // Long, so that a busy machine is within the bound.
    let within = Duration::from_millis(3200);
    let asleep = script("sleep 600");
    let first = runner.run(&asleep, &[], within * 9 / 10);
    let started = Instant::now();
    let second = async {
        // The first one has the room by now.
        sleep(within / 8).await;
        runner.run(&asleep, &[], within).await
    };
    let (first, second) = tokio::join!(first, second);
    let took = started.elapsed();
    assert_eq!(first.unwrap().ending, Ending::TimedOut);
    let Err(NotRun::Unable(words)) = second else {
        panic!("{second:?} says something of the program");
    };
    let beginning = "not finished in time, killed; of its time 2.";
    assert!(words.starts_with(beginning), "{words}");
    // Twice its time it would be if it began anew when there is room.
    assert!(took < within * 3 / 2, "{took:?}");
}

#[tokio::test]
async fn a_program_that_does_not_start_is_waited_for_no_longer_than_there_is_time() {
    // As from a file system that does not answer.
    let runner = Runner::with(1, Identity::of, |command, identity| {
        let _opened = fs::File::open(command.get_program());
        start(command, identity)
    });
    let hung = Hung::new("start");
    let path = hung.path().display().to_string();
    let within = Duration::from_secs(1);
    let silent = program(&[&path]);
    let found = timeout(PATIENCE, runner.run(&silent, &[], within)).await;
    let found = found.expect("it is waited for");
    let words = format!("cannot start {path} in time: its file system does not answer");
    assert_eq!(found, Err(NotRun::Unable(words)));
    let exit = script("exit 0");
    let crowded = runner.run(&exit, &[], within).await;
    let words = "1 programs run already, and none of them came to its end".to_owned();
    assert_eq!(crowded, Err(NotRun::Unable(words)), "it keeps its room");
    drop(hung);
    let after = runner.run(&exit, &[], PATIENCE).await;
    assert_eq!(after.unwrap().ending, Ending::Exited(0));
}

#[tokio::test]
async fn a_program_that_no_kill_ends_is_not_waited_for() {
    let room = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&room).try_acquire_owned().expect("room");
    let identity = Identity::of(&own_name()).expect("it is us");
    let asleep = command(&script("echo stuck; exec sleep 600"), &[]);
    let mut running = spawn_blocking(|| start(asleep, identity)).await.unwrap();
    let group = running.as_mut().expect("it runs").group.0.take();
    let ran = running.unwrap().finish(Instant::now(), permit);
    let ran = timeout(PATIENCE, ran).await.expect("it is waited for");
    assert_eq!(ran.unwrap().ending, Ending::Stuck);
    assert_eq!(room.available_permits(), 0, "it keeps its room");
    Group(group).kill();
    let room = timeout(PATIENCE, room.acquire()).await;
    assert!(room.is_ok(), "it has ended");
}
