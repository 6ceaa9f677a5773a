use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(60);

type Waits = BoxFuture<'static, Result<Slot, Refused>>;

fn waits(limit: &Arc<Limit>, priority: Priority, max: u32, queue: u32, timeout: Duration) -> Waits {
    let limit = Arc::clone(limit);
    Box::pin(async move { limit.wait(priority, max, queue, timeout).await })
}

fn poll(waits: &mut Waits) -> Option<Result<Slot, Refused>> {
    match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// One that has begun to wait.
fn waiter(limit: &Arc<Limit>, priority: Priority, max: u32, queue: u32) -> Waits {
    let mut waits = waits(limit, priority, max, queue, LONG);
    assert!(poll(&mut waits).is_none());
    waits
}

#[tokio::test]
async fn places_are_given_and_given_back() {
    let limit = Arc::new(Limit::default());
    let slots = [limit.try_begin(2).unwrap(), limit.try_begin(2).unwrap()];
    assert!(limit.try_begin(2).is_none());
    assert_eq!(limit.under_way(), 2);
    drop(slots);
    assert_eq!(limit.under_way(), 0);
    assert!(limit.try_begin(0).is_some());
    assert!(limit.try_begin(UNLIMITED).is_some());
}

#[tokio::test]
async fn the_important_go_first_then_who_came_first() {
    let limit = Arc::new(Limit::default());
    let slot = limit.try_begin(1).unwrap();
    let order = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
    let mut waiting = order.map(|priority| Some(waiter(&limit, priority, 1, 10)));
    drop(slot);
    for next in [2, 1, 3, 0] {
        let mut turn = waiting[next].take().unwrap();
        for other in waiting.iter_mut().flatten() {
            assert!(poll(other).is_none());
        }
        assert_eq!(limit.under_way(), 1);
        assert!(poll(&mut turn).unwrap().is_ok());
    }
    assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
}

#[tokio::test]
async fn nobody_overtakes_those_who_wait() {
    let limit = Arc::new(Limit::default());
    let slot = limit.try_begin(1).unwrap();
    let mut waiting = waiter(&limit, Priority::Low, 1, 10);
    drop(slot);
    assert!(limit.try_begin(1).is_none(), "the place is taken, though its owner has not looked yet");
    let slot = poll(&mut waiting).unwrap().unwrap();
    let first = waiter(&limit, Priority::Normal, 1, 10);
    drop((slot, first));
    assert_eq!((limit.under_way(), limit.waiting()), (0, 0), "a place that was given to one that left");
}

#[tokio::test]
async fn in_a_full_queue_the_youngest_of_the_lowest_makes_room() {
    let limit = Arc::new(Limit::default());
    let slot = limit.try_begin(1).unwrap();
    let mut old = waiter(&limit, Priority::Low, 1, 2);
    let mut young = waiter(&limit, Priority::Low, 1, 2);
    let mut equal = waits(&limit, Priority::Low, 1, 2, LONG);
    assert_eq!(poll(&mut equal).unwrap().unwrap_err(), Refused::Full);
    let mut high = waiter(&limit, Priority::High, 1, 2);
    assert_eq!(poll(&mut young).unwrap().unwrap_err(), Refused::Full);
    assert!(poll(&mut old).is_none());
    let mut normal = waiter(&limit, Priority::Normal, 1, 2);
    assert_eq!(poll(&mut old).unwrap().unwrap_err(), Refused::Full);
    assert_eq!(limit.waiting(), 2);
    drop(slot);
    drop(poll(&mut high).unwrap().unwrap());
    drop(poll(&mut normal).unwrap().unwrap());
    assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
}

#[tokio::test]
async fn a_turn_that_does_not_come_is_told() {
    let limit = Arc::new(Limit::default());
    let _slot = limit.try_begin(1).unwrap();
    let late = limit.wait(Priority::Normal, 1, 10, Duration::from_millis(5)).await;
    assert_eq!(late.unwrap_err(), Refused::TimedOut);
    assert_eq!(limit.waiting(), 0);
}

#[tokio::test]
async fn a_limit_that_rises_lets_in_with_the_next_call() {
    let limit = Arc::new(Limit::default());
    let _slot = limit.try_begin(1).unwrap();
    let mut waiting = [waiter(&limit, Priority::Low, 1, 9), waiter(&limit, Priority::Low, 1, 9)];
    assert!(limit.try_begin(3).is_none());
    let slots = waiting.each_mut().map(|waits| poll(waits).unwrap().unwrap());
    assert_eq!((limit.under_way(), limit.waiting()), (3, 0));
    assert!(limit.try_begin(1).is_none());
    drop(slots);
}

#[test]
fn under_stress_nobody_is_forgotten() {
    const MAX: u32 = 3;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let limit = Arc::new(Limit::default());
    let most = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..64u32)
        .map(|task| {
            let (limit, most) = (Arc::clone(&limit), Arc::clone(&most));
            runtime.spawn(async move {
                let mut begun = 0;
                for round in 0..400 {
                    let priority = [Priority::Low, Priority::Normal, Priority::High][(task % 3) as usize];
                    let patience = if (task + round) % 5 == 0 { Duration::ZERO } else { LONG };
                    let mut waits = Box::pin(limit.wait(priority, MAX, 48, patience));
                    if (task + round) % 7 == 0 {
                        // It leaves after a moment.
                        tokio::select! {
                            biased;
                            outcome = &mut waits => drop(outcome),
                            () = tokio::task::yield_now() => {}
                        }
                        continue;
                    }
                    if let Ok(slot) = waits.await {
                        most.fetch_max(limit.under_way(), Ordering::Relaxed);
                        begun += 1;
                        if round % 2 == 0 {
                            tokio::task::yield_now().await;
                        }
                        drop(slot);
                    }
                }
                begun
            })
        })
        .collect();
    let begun = runtime.block_on(async {
        let all = futures_util::future::join_all(tasks);
        let all = tokio::time::timeout(LONG, all).await.expect("somebody waits for ever");
        all.into_iter().map(|begun| begun.unwrap()).sum::<u32>()
    });
    assert!(begun > 0);
    assert_eq!(most.load(Ordering::Relaxed), MAX);
    assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
    assert_eq!(limit.queue.lock().len(), 0);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Try,
    Wait(usize),
    End(usize),
    Leave(usize),
    Max(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Try),
        (0..3usize).prop_map(Step::Wait),
        any::<usize>().prop_map(Step::End),
        any::<usize>().prop_map(Step::Leave),
        (1..5u32).prop_map(Step::Max),
    ]
}

proptest! {
    #[test]
    fn no_place_is_lost_and_none_is_left_over(steps in prop::collection::vec(step(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let limit = Arc::new(Limit::default());
        let (mut max, mut highest) = (2, 2);
        let mut slots: Vec<Slot> = Vec::new();
        let mut waiting: Vec<Waits> = Vec::new();
        for step in steps {
            match step {
                Step::Try => slots.extend(limit.try_begin(max)),
                Step::Wait(class) => {
                    let priority = [Priority::Low, Priority::Normal, Priority::High][class];
                    waiting.push(waits(&limit, priority, max, 4, LONG));
                }
                Step::End(at) if !slots.is_empty() => drop(slots.swap_remove(at % slots.len())),
                Step::Leave(at) if !waiting.is_empty() => drop(waiting.swap_remove(at % waiting.len())),
                Step::End(_) | Step::Leave(_) => {}
                Step::Max(told) => {
                    max = told;
                    highest = highest.max(told);
                    slots.extend(limit.try_begin(max));
                }
            }
            waiting.retain_mut(|waits| match poll(waits) {
                None => true,
                Some(Ok(slot)) => {
                    slots.push(slot);
                    false
                }
                Some(Err(refused)) => {
                    assert_eq!(refused, Refused::Full);
                    false
                }
            });
            prop_assert!(slots.len() <= highest as usize);
            prop_assert_eq!(limit.waiting() as usize, limit.queue.lock().len());
            prop_assert!(limit.waiting() <= 4);
            // Somebody waits only while there is no room.
            prop_assert!(waiting.is_empty() || limit.under_way() >= max);
        }
        drop(slots);
        for mut waits in waiting {
            if let Some(outcome) = poll(&mut waits) {
                drop(outcome);
            }
        }
        prop_assert_eq!((limit.under_way(), limit.waiting()), (0, 0));
    }
}
