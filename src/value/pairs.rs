//! A mapping that keeps the order in which its keys came.
//!
//! Nearly all mappings of states are small: an argument has a single key. So the pairs stand in a vector, and a key is looked for by comparing
//! it with each; only beyond `FEW` an index is kept. A hash table for each of them would take three times the memory, and half of a compile's time.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;
use indexmap::Equivalent;

/// As many keys are found without an index.
const FEW: usize = 16;

#[derive(Clone)]
pub struct Pairs<K, V> {
    pairs: Vec<(K, V)>,
    index: Option<Box<Index>>,
}

/// Where each key stands, with its hash.
#[derive(Clone, Default)]
struct Index {
    places: HashTable<(u64, usize)>,
    hasher: RandomState,
}

pub type Iter<'a, K, V> = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;
pub type IterMut<'a, K, V> = std::iter::Map<std::slice::IterMut<'a, (K, V)>, fn(&'a mut (K, V)) -> (&'a K, &'a mut V)>;

fn both<K, V>(pair: &(K, V)) -> (&K, &V) {
    (&pair.0, &pair.1)
}

fn both_mut<K, V>(pair: &mut (K, V)) -> (&K, &mut V) {
    (&pair.0, &mut pair.1)
}

impl<K, V> Pairs<K, V> {
    pub fn new() -> Pairs<K, V> {
        Pairs { pairs: Vec::new(), index: None }
    }

    pub fn with_capacity(pairs: usize) -> Pairs<K, V> {
        Pairs { pairs: Vec::with_capacity(pairs), index: None }
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        self.pairs.iter().map(both)
    }

    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        self.pairs.iter_mut().map(both_mut)
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator {
        self.pairs.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator {
        self.pairs.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> + ExactSizeIterator {
        self.pairs.iter_mut().map(|(_, value)| value)
    }

    pub fn get_index(&self, at: usize) -> Option<(&K, &V)> {
        self.pairs.get(at).map(both)
    }

    pub fn get_index_mut(&mut self, at: usize) -> Option<(&K, &mut V)> {
        self.pairs.get_mut(at).map(both_mut)
    }

    pub fn first(&self) -> Option<(&K, &V)> {
        self.get_index(0)
    }

    pub fn last(&self) -> Option<(&K, &V)> {
        self.pairs.last().map(both)
    }
}

impl<K: Hash + Eq, V> Pairs<K, V> {
    pub fn get_index_of<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<usize> {
        match &self.index {
            None => self.pairs.iter().position(|(there, _)| key.equivalent(there)),
            Some(index) => {
                let hash = index.hasher.hash_one(key);
                let same = |(own, at): &(u64, usize)| *own == hash && self.pairs.get(*at).is_some_and(|(there, _)| key.equivalent(there));
                index.places.find(hash, same).map(|(_, at)| *at)
            }
        }
    }

    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        self.get_index(self.get_index_of(key)?).map(|(_, value)| value)
    }

    pub fn get_mut<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<&mut V> {
        let at = self.get_index_of(key)?;
        self.get_index_mut(at).map(|(_, value)| value)
    }

    pub fn contains_key<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> bool {
        self.get_index_of(key).is_some()
    }

    /// Sets a key; one that is there keeps its place. Gives the value that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.get_mut(&key) {
            Some(there) => Some(std::mem::replace(there, value)),
            None => {
                self.push(key, value);
                None
            }
        }
    }

    /// The value of a key, which is made where there is none.
    pub fn get_or_insert_with<Q>(&mut self, key: &Q, make: impl FnOnce() -> V) -> &mut V
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
    {
        let at = self.get_index_of(key).unwrap_or_else(|| {
            self.push(key.to_owned(), make());
            self.pairs.len() - 1
        });
        &mut self.pairs[at].1
    }

    /// Adds a key that is not there.
    fn push(&mut self, key: K, value: V) {
        self.pairs.push((key, value));
        match &mut self.index {
            None if self.pairs.len() > FEW => self.index_all(),
            None => {}
            Some(index) => index.add_last(&self.pairs),
        }
    }

    fn index_all(&mut self) {
        let mut index = Box::new(Index { places: HashTable::with_capacity(self.pairs.capacity()), ..Index::default() });
        (1..=self.pairs.len()).for_each(|len| index.add_last(&self.pairs[..len]));
        self.index = Some(index);
    }

    /// Takes a key out; the order of the others stays.
    pub fn shift_remove<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) -> Option<V> {
        let at = self.get_index_of(key)?;
        if let Some(index) = &mut self.index {
            if let Ok(place) = index.places.find_entry(index.hasher.hash_one(key), |(_, place)| *place == at) {
                place.remove();
            }
            index.places.iter_mut().filter(|(_, place)| *place > at).for_each(|(_, place)| *place -= 1);
        }
        Some(self.pairs.remove(at).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.pairs.retain_mut(|(key, value)| keep(key, value));
        if self.index.is_some() {
            self.index_all();
        }
    }
}

impl Index {
    fn add_last<K: Hash, V>(&mut self, pairs: &[(K, V)]) {
        if let [.., (key, _)] = pairs {
            let hash = self.hasher.hash_one(key);
            self.places.insert_unique(hash, (hash, pairs.len() - 1), |(hash, _)| *hash);
        }
    }
}

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Pairs<K, V> {
        Pairs::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Pairs<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Whatever the order, as in Python.
impl<K: Hash + Eq, V: PartialEq> PartialEq for Pairs<K, V> {
    fn eq(&self, other: &Pairs<K, V>) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Hash + Eq, V> Extend<(K, V)> for Pairs<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, pairs: T) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for Pairs<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Pairs<K, V> {
        let pairs = pairs.into_iter();
        let mut all = Pairs::with_capacity(pairs.size_hint().0);
        all.extend(pairs);
        all
    }
}

impl<K, V> IntoIterator for Pairs<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;
    fn into_iter(self) -> Self::IntoIter {
        self.pairs.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Pairs<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut Pairs<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_keys_are_found_replaced_and_taken_out_alike() {
        for many in [3, FEW, FEW + 1, 500] {
            let mut map: Pairs<String, usize> = (0..many).map(|n| (n.to_string(), n)).collect();
            assert_eq!((map.len(), map.index.is_some()), (many, many > FEW));
            assert_eq!(map.insert("1".into(), 100), Some(1), "an old key keeps its place");
            assert_eq!(map.shift_remove("0"), Some(0));
            assert_eq!(map.get("0"), None);
            assert_eq!(map.shift_remove("0"), None);
            assert_eq!((map.first(), map.get("2")), (Some((&"1".to_owned(), &100)), Some(&2)));
            assert_eq!(*map.get_or_insert_with("new", || 7), 7);
            assert_eq!(*map.get_or_insert_with("2", || 7), 2);
            for (at, (key, value)) in map.iter().enumerate() {
                assert_eq!((map.get_index_of(key), map.get(key)), (Some(at), Some(value)), "{many}");
            }
            map.retain(|_, value| *value % 2 == 0);
            assert!(map.values().all(|value| value % 2 == 0) && map.keys().all(|key| map.contains_key(key)), "{many}");
            assert!(!map.contains_key("new"));
        }
    }

    #[test]
    fn the_order_does_not_count_where_mappings_are_compared() {
        for many in [2, 100] {
            let map: Pairs<usize, usize> = (0..many).map(|n| (n, n)).collect();
            assert_eq!(map, (0..many).rev().map(|n| (n, n)).collect());
            assert_ne!(map, (0..many).map(|n| (n, n + 1)).collect());
            assert_ne!(map, (1..many).map(|n| (n, n)).collect());
        }
    }
}
