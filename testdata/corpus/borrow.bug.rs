fn main() {
    let words = vec![String::from("a")];
    let taken = words;
    println!("{} {}", words.len(), taken.len());
}
