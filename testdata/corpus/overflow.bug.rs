fn factorial(n: u32) -> u32 {
    (1..=n).product()
}

fn main() {
    println!("{}", factorial(20));
}
