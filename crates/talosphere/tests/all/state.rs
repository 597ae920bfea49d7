//! The state directory under bad treatment, and deletions that are proven later.

use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use simulator::hooks::{Call, Phase, Verdict};

use super::kills::World;

const UP: &str = "talosphere up -f ipam.yaml -f standard.yaml --env standard.env -n team --timeout 60s";
const ONE: &[&str] = &["CONTROL_PLANE_MACHINE_COUNT=1", "WORKER_MACHINE_COUNT=0"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_damaged_store_begins_nothing_anew() {
    let world = World::start(ONE).await;
    tokio::task::block_in_place(|| {
        let store = world.shell.folder.path().join("state/store.redb");
        world.shell.ok(UP);
        let good = std::fs::read(&store).unwrap();
        let mut file = std::fs::OpenOptions::new().write(true).open(&store).unwrap();
        file.seek(std::io::SeekFrom::Start(8192)).unwrap();
        file.write_all(&vec![0; good.len().saturating_sub(8192).min(1 << 20)]).unwrap();
        drop(file);
        for command in ["talosphere get clusters -A", UP] {
            let error = world.shell.fails(command, 1);
            assert!(error.contains("TS202") && error.contains("remedy") && !error.contains("panicked"), "{command}\n{error}");
        }
        for spoil in ["", "not a database"] {
            std::fs::write(&store, spoil).unwrap();
            let error = world.shell.fails(UP, 1);
            assert!(error.contains("TS202") && error.contains("remedy"), "{spoil:?}\n{error}");
        }
        std::fs::remove_file(&store).unwrap();
        let error = world.shell.fails(UP, 1);
        assert!(error.contains("TS202") && error.contains("is lost"), "{error}");
        world.rest("while the store is lost", 1);
        std::fs::write(&store, good).unwrap();
        world.shell.ok(UP);
    });
    world.rest("when it is back", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_state_is_taken_away_ends() {
    let world = World::start(ONE).await;
    tokio::task::block_in_place(|| {
        let serve = world.shell.serve();
        let state = world.shell.folder.path().join("state");
        std::fs::rename(state.join("store.redb"), state.join("elsewhere")).unwrap();
        let error = world.shell.run(UP);
        assert!(!error.status.success());
        assert_eq!(serve.wait().code(), Some(1));
        assert!(serve.stderr().contains("TS202") && serve.stderr().contains("removed or replaced"), "{}", serve.stderr());
        std::fs::rename(state.join("elsewhere"), state.join("store.redb")).unwrap();
        world.shell.ok(UP);
    });
    world.rest("when it is back", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_could_not_be_proven_is_proven_by_the_same_command() {
    let world = World::start(ONE).await;
    let is_closed = Arc::new(AtomicBool::new(false));
    world.simulator.hooks().on({
        let is_closed = is_closed.clone();
        move |call: &Call| {
            let is_login = call.face == "vcenter" && call.method == "Login" && call.phase == Phase::Before;
            if is_login && is_closed.load(Ordering::SeqCst) { Verdict::Fault("503".to_owned()) } else { Verdict::Proceed }
        }
    });
    tokio::task::block_in_place(|| {
        let _serve = world.shell.serve();
        world.shell.ok(UP);
        let credentials = world.shell.folder.path().join("state/clusters/team/demo");
        assert!(credentials.join("kubeconfig").is_file());
        is_closed.store(true, Ordering::SeqCst);
        let delete = "talosphere delete cluster demo -n team --yes --timeout 60s";
        let error = world.shell.run(delete);
        let text = String::from_utf8_lossy(&error.stderr).into_owned();
        assert!(!error.status.success() && text.contains("TS304") && text.contains("run the same command again"), "{text}");
        assert!(!text.contains("0 left behind"), "{text}");
        assert!(world.shell.run("talosphere get clusters -n team -o name").stdout.is_empty(), "the Cluster is gone");
        is_closed.store(false, Ordering::SeqCst);
        let output = world.shell.run(delete);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && text.contains("0 left behind (vCenter"), "{text}");
        // What was made for the cluster went with it.
        assert!(text.contains("secret/demo deleted"), "{text}");
        assert!(!credentials.exists());
        let error = world.shell.fails(delete, 1);
        assert!(error.contains("TS114"), "{error}");
    });
    world.rest("after the proof", 0);
}
