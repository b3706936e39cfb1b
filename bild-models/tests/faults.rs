//! What disks and other programs do to the files of a checkpoint: an error, or another model that a digest tells apart; never a panic.

mod common;

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use bild_models::{Checkpoint, LoadError, T5};
use common::{Numbers, TestBackend, copy, files, run, write_checkpoint};
use serde_json::json;

fn load(directory: &Path) -> Result<T5<TestBackend>, LoadError> {
    T5::load(&Checkpoint::open(directory)?, &Default::default())
}

/// A thousand bits of weights: a checksum tells, where there is one; else weights that are not finite are refused, and others make
/// another model, which runs.
#[test]
fn flipped_bits_of_weights_are_told_where_something_can_tell() {
    for (name, file, has_checksum) in [("t5-bf16", "model.safetensors", false), ("mt5", "pytorch_model.bin", true)] {
        let directory = copy(name);
        let path = directory.path().join(file);
        let bytes = fs::read(&path).unwrap();
        let mut numbers = Numbers(1);
        let mut refused = 0;
        for _ in 0..500 {
            // The first tenth of a file holds what describes the weights, and the last.
            let at = bytes.len() / 10 + numbers.below(bytes.len() / 10 * 8);
            let write = |byte: u8| {
                let mut file = OpenOptions::new().write(true).open(&path).unwrap();
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&[byte]).unwrap();
            };
            write(bytes[at] ^ 1 << numbers.below(8));
            match load(directory.path()) {
                Ok(model) => run(model),
                Err(error) => {
                    assert!(error.to_string().contains(file), "{error}");
                    refused += 1;
                }
            }
            write(bytes[at]);
        }
        assert!(if has_checksum { refused > 450 } else { refused > 0 }, "{name}: {refused} of 500 are refused");
        load(directory.path()).map(run).unwrap();
    }
}

/// Cut off at two hundred places: refused before a weight is used.
#[test]
fn files_that_are_cut_off_are_refused() {
    for name in ["t5-bf16", "t5-v1_1", "mt5"] {
        let directory = copy(name);
        let files = files(directory.path());
        let weights: Vec<_> = files.iter().filter(|path| !path.extension().unwrap().eq("json")).collect();
        let mut numbers = Numbers(2);
        for _ in 0..70 {
            let path = weights[numbers.below(weights.len())];
            let sound = fs::read(path).unwrap();
            fs::write(path, &sound[..numbers.below(sound.len())]).unwrap();
            let error = load(directory.path()).expect_err("it is cut off").to_string();
            assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
            fs::write(path, sound).unwrap();
        }
    }
}

#[test]
fn shards_that_changed_places_are_refused() {
    let directory = copy("t5-v1_1");
    let files = files(directory.path());
    let shards: Vec<_> = files.iter().filter(|path| path.extension().unwrap() == "safetensors").collect();
    let [first, second] = shards[..] else { panic!("there are two") };
    let between = directory.path().join("between");
    fs::rename(first, &between).unwrap();
    fs::rename(second, first).unwrap();
    fs::rename(&between, second).unwrap();
    let error = load(directory.path()).map(drop).unwrap_err().to_string();
    assert!(error.contains("is missing") && error.contains("-of-00002.safetensors"), "{error}");
}

/// Between the time when its header is read and the time when its weights are.
#[test]
fn a_file_that_changes_while_it_is_read_is_no_crash() {
    for (name, file) in [("t5-bf16", "model.safetensors"), ("mt5", "pytorch_model.bin")] {
        let directory = copy(name);
        let path = directory.path().join(file);
        let sound = fs::read(&path).unwrap();
        for kept in [0, 1, 100, sound.len() / 2, sound.len() - 1] {
            let checkpoint = Checkpoint::open(directory.path()).unwrap();
            fs::write(&path, &sound[..kept]).unwrap();
            let error = T5::<TestBackend>::load(&checkpoint, &Default::default()).map(drop).expect_err("it has shrunk");
            assert!(error.to_string().contains(file), "{error}");
            fs::write(&path, &sound).unwrap();
        }
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        fs::remove_file(&path).unwrap();
        let _ = T5::<TestBackend>::load(&checkpoint, &Default::default()).map(run);
        // Others write into it meanwhile.
        fs::write(&path, &sound).unwrap();
        let written = std::thread::spawn({
            let (path, sound) = (path.clone(), sound.clone());
            move || {
                for i in 0..200 {
                    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len((sound.len() - i * sound.len() / 400) as u64).unwrap();
                    file.seek(SeekFrom::Start((i * 97 % sound.len()) as u64)).unwrap();
                    file.write_all(&[i as u8; 64]).unwrap();
                    file.set_len(sound.len() as u64).unwrap();
                }
            }
        });
        while !written.is_finished() {
            let _ = load(directory.path()).map(run);
        }
        written.join().unwrap();
    }
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read_are_named() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    write_checkpoint(directory.path(), &common::config(json!({})), 1, |_| {});
    for name in ["config.json", "model.safetensors"] {
        let path = directory.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if File::open(&path).is_ok() {
            return; // who may do everything is not kept from it
        }
        let error = load(directory.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("cannot be read"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}
