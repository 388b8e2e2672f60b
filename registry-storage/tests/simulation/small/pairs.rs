//! One client stops before each write and each listing, and two others make requests, each of them at one of these stops. All pairs of
//! stops come, so what needs two requests at two moments is found for certain.

use std::sync::Arc;

use super::work::{Op, Work};
use super::{Schedule, World};

/// How many seeds there are.
pub(crate) const PAIRS: u64 = {
    let (mut all, mut at) = (0, 0);
    while at < MEETINGS.len() {
        all += pairs(MEETINGS[at].stops);
        at += 1;
    }
    all
};

/// How many clients meet.
pub(super) const CLIENTS: usize = 3;

struct Meeting {
    work: Work,
    before: &'static [Op],
    slow: &'static [Op],
    /// The requests of the others, in the order in which they begin.
    quick: [&'static [Op]; 2],
    /// How often the slow client stops, about.
    stops: u64,
}

const MEETINGS: [Meeting; 13] = [
    // A sweep of everything, and an upload.
    Meeting {
        work: Work::Digests,
        before: &[Op::Append],
        slow: &[Op::SweepAll],
        quick: [&[Op::CommitWrongly], &[Op::Commit(0)]],
        stops: 14,
    },
    // The commit of an upload that is cancelled, and whose bytes are swept.
    Meeting {
        work: Work::Digests,
        before: &[Op::Append],
        slow: &[Op::Commit(1)],
        quick: [&[Op::Cancel], &[Op::SweepAll]],
        stops: 11,
    },
    // The commits of an upload by two digests.
    Meeting {
        work: Work::Digests,
        before: &[Op::Append],
        slow: &[Op::Commit(0)],
        quick: [&[Op::Commit(1)], &[Op::Commit(1)]],
        stops: 10,
    },
    // A push that takes a tag back to a manifest that is deleted.
    Meeting {
        work: Work::Refusals,
        before: &[Op::PushOldTo(0)],
        slow: &[Op::PushImmutable],
        quick: [&[Op::PushOldTo(1)], &[Op::DeleteOld]],
        stops: 9,
    },
    // Two cycles, and a manifest that is pushed and deleted.
    Meeting {
        work: Work::KeptOne,
        before: &[Op::PushBlob],
        slow: &[Op::Collect, Op::Collect],
        quick: [&[Op::PushImage], &[Op::DeleteImage]],
        stops: 34,
    },
    // Two cycles in step, and a push.
    Meeting {
        work: Work::Children,
        before: &[Op::PushBlob],
        slow: &[Op::Collect],
        quick: [&[Op::SlowCollect], &[Op::PushImage]],
        stops: 17,
    },
    // A push that is refused because a child is missing, and cycles.
    Meeting {
        work: Work::Incomplete,
        before: &[Op::PushBlob, Op::Collect],
        slow: &[Op::PushIncomplete],
        quick: [&[Op::Collect], &[Op::Collect]],
        stops: 3,
    },
    // A grant that comes and goes while another push makes it.
    Meeting {
        work: Work::Children,
        before: &[],
        slow: &[Op::PushBlob],
        quick: [&[Op::PushBlob], &[Op::DeleteBlob]],
        stops: 10,
    },
    // A delete of a repository that is empty by now, and pushes.
    Meeting {
        work: Work::Repository,
        before: &[Op::PushOldTo(0), Op::DeleteOld],
        slow: &[Op::DeleteRepository],
        quick: [&[Op::PushImage], &[Op::PushImage]],
        stops: 22,
    },
    // A mount of a blob that is deleted and collected.
    Meeting {
        work: Work::Blobs,
        before: &[Op::PushBlob, Op::Collect],
        slow: &[Op::Mount],
        quick: [&[Op::DeleteBlob, Op::Collect], &[Op::Collect]],
        stops: 6,
    },
    // A delete of a manifest, and cycles.
    Meeting {
        work: Work::Children,
        before: &[Op::PushBlob, Op::PushOldTo(0), Op::Collect],
        slow: &[Op::DeleteOld],
        quick: [&[Op::Collect], &[Op::Collect]],
        stops: 6,
    },
    // Pulls that two processes record, before retention asks for them.
    Meeting {
        work: Work::Pulls,
        before: &[Op::RecordPulls, Op::PushAll],
        slow: &[Op::Pull(0)],
        quick: [&[Op::Pull(1)], &[Op::Pull(1)]],
        stops: 3,
    },
    // A push that a quota counts, and a count.
    Meeting {
        work: Work::Quota,
        before: &[Op::PushBlob, Op::Count],
        slow: &[Op::PushImage],
        quick: [&[Op::Count], &[Op::Count]],
        stops: 24,
    },
];

/// How many pairs of stops there are.
const fn pairs(stops: u64) -> u64 {
    stops * (stops + 1) / 2
}

/// Returns a meeting, and the stops at which the others make their requests.
fn meeting(seed: u64) -> (&'static Meeting, [usize; 2]) {
    let mut number = seed % PAIRS;
    for meeting in &MEETINGS {
        for second in 0..meeting.stops {
            if number <= second {
                return (meeting, [number as usize, second as usize]);
            }
            number -= second + 1;
        }
    }
    panic!("there are {PAIRS} pairs")
}

pub(crate) async fn run(seed: u64) -> u64 {
    let (meeting, stops) = meeting(seed);
    println!("{:?} {:?} {stops:?}", meeting.slow, meeting.quick);
    let world = Arc::new(World::new(meeting.work, seed, false));
    world.begin(meeting.before, seed).await;
    let mut slow = world.client(0, seed);
    Schedule::stop_everywhere(slow.process.backend());
    let slow_requests = async {
        for op in meeting.slow {
            slow.perform(*op).await;
        }
    };
    let at_stop = async |number: usize, ops: &[Op]| {
        let mut client = world.client(number, seed);
        if ops.contains(&Op::SlowCollect) {
            Schedule::stop_everywhere(client.process.backend());
        }
        crate::wait(Schedule::STOP * stops[number - 1] + 1).await;
        for op in ops {
            client.perform(*op).await;
        }
    };
    let [one, two] = meeting.quick;
    tokio::join!(slow_requests, at_stop(1, one), at_stop(2, two));
    for process in &world.processes {
        process.backend().heal();
    }
    if meeting.work == Work::Pulls {
        world.client(0, seed).perform(Op::Retain).await;
    }
    world.assert_end(true).await;
    world.calls()
}
