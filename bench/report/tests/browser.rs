//! The page in a real browser: headless Chromium lays it out, and takes a picture of it for whoever builds it to look at
//! (target/tmp/report-light.png and report-dark.png).

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use penstock_report::{Results, page};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

fn chromium(arguments: &[String]) -> Output {
    // Root has no sandbox, and a machine for tests may have a small /dev/shm.
    let common = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
    let started = NAMES.iter().find_map(|name| Command::new(name).args(common).args(arguments).output().ok());
    let output = started.expect("this test needs Chromium: `apt install chromium` (./dev does it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn written(folder: &Path) -> PathBuf {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../record");
    let path = folder.join("report.html");
    std::fs::write(&path, page::page(&Results::read(&record).unwrap(), "Penstock, measured").unwrap()).unwrap();
    path
}

/// Width and height that a PNG's head gives.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn chromium_shows_the_page_in_both_themes() {
    let folder = tempfile::tempdir().unwrap();
    let page = written(folder.path());
    let url = format!("file://{}", page.display());
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let dom = chromium(&["--dump-dom".to_owned(), profile.clone(), url.clone()]);
    let dom = String::from_utf8(dom.stdout).unwrap();
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.matches("<svg").count() >= 8, "the record has plots to show");
    assert_eq!(dom.matches("<svg").count(), html.matches("<svg").count(), "the browser dropped plots");
    assert_eq!(dom.matches("<table").count(), html.matches("<table").count(), "the browser dropped tables");

    let mut pictures = Vec::new();
    for (theme, option) in [("light", None), ("dark", Some("--force-dark-mode".to_owned()))] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{theme}.png"));
        let shot = [
            format!("--screenshot={}", path.display()),
            "--window-size=900,6000".to_owned(),
            profile.clone(),
            url.clone(),
        ];
        chromium(&option.into_iter().chain(shot).collect::<Vec<_>>());
        let picture = std::fs::read(&path).unwrap();
        assert_eq!(png_size(&picture), (900, 6000));
        assert!(picture.len() > 50_000, "a page of plots is no blank sheet: {} bytes", picture.len());
        pictures.push(picture);
    }
    assert_ne!(pictures[0], pictures[1], "dark and light look alike");
}
