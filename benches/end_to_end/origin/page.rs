//! What the compression workload compresses: a list in JSON, of which some repeats and some does not.

/// A page of exactly this many bytes, the same each time. Its end is cut off.
pub fn page(length: usize) -> Vec<u8> {
    let mut page = String::from("[");
    let mut random = 1_u32;
    for id in 0.. {
        if page.len() >= length {
            break;
        }
        // Numerical Recipes' generator; its high bits are random enough for text.
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % below
        };
        let (word, price, stock, rating) = (next(WORDS.len() as u32), next(90_000), next(500), next(50));
        let (first, second) = (WORDS[word as usize], WORDS[next(WORDS.len() as u32) as usize]);
        page.push_str(&format!(
            "{{\"id\":{id},\"name\":\"{first} {second}\",\"price\":{}.{:02},\"stock\":{stock},\"rating\":{}.{},\
             \"url\":\"https://shop.example.com/{first}/{second}-{id}\",\"description\":\"A {second} for every \
             {first}, in blue and in green.\"}},",
            price / 100,
            price % 100,
            rating / 10,
            rating % 10
        ));
    }
    page.truncate(length);
    page.into_bytes()
}

const WORDS: [&str; 16] = [
    "lamp", "table", "garden", "window", "bottle", "carpet", "mirror", "basket", "candle", "kettle",
    "pillow", "ladder", "hammer", "teapot", "wallet", "folder",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_of_the_length_and_the_same_each_time() {
        assert_eq!(page(65_536).len(), 65_536);
        assert_eq!(page(1000), page(65_536)[..1000]);
    }
}
