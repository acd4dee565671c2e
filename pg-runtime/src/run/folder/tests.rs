use super::*;

fn create(path: &Path, overwrite: bool) -> Result<RunFolder, RunError> {
    RunFolder::create(Some(path), "m", overwrite)
}

fn refused(path: &Path) -> String {
    create(path, false).err().map(|e| e.to_string()).unwrap()
}

#[test]
fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let first = create(&path, false).unwrap();
    let message = refused(&path);
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    assert!(create(&path, true).is_err(), "not even by force");
    drop(first);
    let again = create(&path, false).unwrap();
    again.write(RECORD, b"{}").unwrap();
    drop(again);
    assert!(refused(&path).contains("--resume"));
    drop(create(&path, true).unwrap());
    assert!(!path.exists(), "a run that kept nothing leaves nothing");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join(REPORT), b"{}").unwrap();
    assert!(refused(&path).contains("finished"));
}

#[test]
fn results_appear_together_and_a_stop_among_them_is_made_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for stopped_after in 0..FILES.len() {
        let own = create(&path, true).unwrap();
        // What an earlier run left.
        FILES.iter().for_each(|name| std::fs::write(path.join(name), b"old").unwrap());
        FILES.iter().for_each(|name| own.write(name, b"new").unwrap());
        std::fs::remove_file(path.join(REPORT)).unwrap();
        for name in &FILES[..stopped_after] {
            std::fs::rename(own.unfinished(name), own.file(name)).unwrap();
        }
        drop(own);
        assert!(refused(&path).contains("--resume"), "after {stopped_after} names");
        let record = unfinished_record(&path).unwrap().expect("it is one that was stopped");
        assert_eq!(std::fs::read(record).unwrap(), b"new");
        let left = RunFolder::reopen(&path).unwrap().publish().unwrap();
        assert!(left.is_none(), "{left:?}");
        for name in FILES {
            assert_eq!(std::fs::read(path.join(name)).unwrap(), b"new", "{stopped_after} {name}");
        }
        assert!(!unfinished_in(&path).exists());
        assert!(unfinished_record(&path).unwrap().is_none());
    }
}

#[test]
fn a_run_that_goes_on_is_never_taken_for_one_that_has_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let own = create(&path, false).unwrap();
    own.write(RECORD, b"{}").unwrap();
    drop(own);
    // What cannot be looked at may be there: here, for it is a link to itself.
    #[cfg(unix)]
    {
        std::fs::remove_file(unfinished_in(&path).join(RECORD)).unwrap();
        std::os::unix::fs::symlink(RECORD, unfinished_in(&path).join(RECORD)).unwrap();
        assert!(matches!(unfinished_record(&path), Err(RunError::Io { .. })));
        assert!(matches!(create(&path, false), Err(RunError::Io { .. })));
    }
    drop(RunFolder::reopen(&path).unwrap());
    assert!(unfinished_in(&path).exists());
}

#[test]
fn default_names_are_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let name = || new_folder(folder.path(), "m").unwrap();
    let names: std::collections::HashSet<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(name)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(names.len(), 8);
}

#[cfg(target_os = "linux")]
#[test]
fn room_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let own = create(&folder.path().join("run"), false).unwrap();
    own.reserve(4096).unwrap();
    own.release().unwrap();
    let error = own.reserve(1 << 50).unwrap_err().to_string();
    assert!(error.contains("1125899906842624"), "{error}");
    assert!(!own.unfinished(RESERVED).exists());
}
