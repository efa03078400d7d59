use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

fn main() {
    let (send, receive) = mpsc::channel();
    for line in ["the cat saw the dog", "the dog saw nothing"] {
        let send = send.clone();
        thread::spawn(move || {
            for word in line.split(' ') {
                send.send(word).unwrap();
            }
        });
    }
    drop(send);
    let mut counts = BTreeMap::new();
    for word in receive {
        *counts.entry(word).or_insert(0) += 1;
    }
    assert_eq!(counts["the"], 3);
    assert_eq!(counts.len(), 5);
}
