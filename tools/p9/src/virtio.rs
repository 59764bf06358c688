//! A legacy virtio device with one split ring whose 128 entries are indirect, so that 128 requests can be in flight.
//!
//! Source: virtio 1.2, sections 2.7 (split rings) and 4.1.4.8 (legacy registers); QEMU `virtio_9p.h` (mount tag).

use std::rc::Rc;

use crate::error::{Error, Result};
use crate::qtest::Qtest;
use crate::sys::GuestMemory;

/// Entries of the ring: QEMU's MAX_REQ of virtio-9p.
pub const RING_SIZE: u16 = 128;

const PAGE: u64 = 4096;

// Legacy registers, offsets from BAR0.
const HOST_FEATURES: u16 = 0;
const GUEST_FEATURES: u16 = 4;
const QUEUE_PAGE: u16 = 8;
const QUEUE_SIZE: u16 = 12;
const QUEUE_SELECT: u16 = 14;
const QUEUE_NOTIFY: u16 = 16;
const STATUS: u16 = 18;
const ISR: u16 = 19;
const TAG_LENGTH: u16 = 20;
const TAG: u16 = 22;

const FEATURE_INDIRECT: u64 = 1 << 28;
const STATUS_ACKNOWLEDGE_AND_DRIVER: u8 = 3;
const STATUS_DRIVER_OK: u8 = 7;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
const DESC_OCTETS: u64 = 16;
/// VRING_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;
/// VRING_USED_F_NO_NOTIFY.
const NO_NOTIFY: u16 = 1;

/// Which of the ring's 128 places a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u16);

/// Where in guest memory a device's parts lie: all follow from the base and the size of a message.
#[derive(Debug, Clone, Copy)]
struct Layout {
    base: u64,
    buffer: u64,
}

impl Layout {
    fn descriptor(self, slot: Slot) -> u64 {
        self.base + u64::from(slot.0) * DESC_OCTETS
    }
    fn available(self) -> u64 {
        self.base + u64::from(RING_SIZE) * DESC_OCTETS
    }
    /// The next page, as the legacy layout wants it.
    fn used(self) -> u64 {
        self.base + PAGE
    }
    fn indirect(self, slot: Slot) -> u64 {
        self.base + 2 * PAGE + u64::from(slot.0) * 2 * DESC_OCTETS
    }
    fn request(self, slot: Slot) -> u64 {
        self.base + 3 * PAGE + u64::from(slot.0) * 2 * self.buffer
    }
    fn reply(self, slot: Slot) -> u64 {
        self.request(slot) + self.buffer
    }
}

/// Octets of guest memory that a device with messages of that size needs.
pub(crate) fn footprint(msize: u32) -> u64 {
    3 * PAGE + u64::from(RING_SIZE) * 2 * u64::from(msize).next_multiple_of(PAGE)
}

/// A device that was found and told that its driver is there.
#[derive(Debug)]
pub(crate) struct Device {
    port: u16,
    tag: String,
}

impl Device {
    /// Resets the device and reads its mount tag.
    pub(crate) fn probe(qtest: &mut Qtest, port: u16) -> Result<Self> {
        qtest.post(format_args!("outb {:#x} 0x0", port + STATUS))?;
        let length =
            u16::try_from(qtest.call(format_args!("inw {:#x}", port + TAG_LENGTH))?).unwrap_or(0);
        let mut tag = Vec::new();
        for offset in 0..length.min(64) {
            let octet = qtest.call(format_args!("inb {:#x}", port + TAG + offset))?;
            tag.push(u8::try_from(octet).unwrap_or(b'?'));
        }
        Ok(Self {
            port,
            tag: String::from_utf8_lossy(&tag).into_owned(),
        })
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The port whose reading tells of, and takes back, an interrupt.
    pub(crate) fn interrupt_port(&self) -> u16 {
        self.port + ISR
    }

    /// Lays the ring out at `base` and starts the device.
    pub(crate) fn start(
        self,
        qtest: &mut Qtest,
        memory: Rc<GuestMemory>,
        base: u64,
        msize: u32,
    ) -> Result<Queue> {
        let port = self.port;
        qtest.post(format_args!(
            "outb {:#x} {STATUS_ACKNOWLEDGE_AND_DRIVER:#x}",
            port + STATUS
        ))?;
        let offered = qtest.call(format_args!("inl {:#x}", port + HOST_FEATURES))?;
        if offered & FEATURE_INDIRECT == 0 {
            return Err(Error::Protocol(
                "the device has no indirect descriptors".to_owned(),
            ));
        }
        qtest.post(format_args!(
            "outl {:#x} {FEATURE_INDIRECT:#x}",
            port + GUEST_FEATURES
        ))?;
        qtest.post(format_args!("outw {:#x} 0x0", port + QUEUE_SELECT))?;
        let size = qtest.call(format_args!("inw {:#x}", port + QUEUE_SIZE))?;
        if size != u64::from(RING_SIZE) {
            return Err(Error::Protocol(format!(
                "the ring has {size} entries, not {RING_SIZE}"
            )));
        }
        let layout = Layout {
            base,
            buffer: u64::from(msize).next_multiple_of(PAGE),
        };
        for index in 0..RING_SIZE {
            let slot = Slot(index);
            let table = Descriptor {
                address: layout.indirect(slot),
                length: 32,
                flags: DESC_INDIRECT,
                next: 0,
            };
            memory.write(layout.descriptor(slot), &table.octets())?;
            let reply = Descriptor {
                address: layout.reply(slot),
                length: msize,
                flags: DESC_WRITE,
                next: 0,
            };
            memory.write(layout.indirect(slot) + DESC_OCTETS, &reply.octets())?;
        }
        let queue = Queue {
            port,
            memory,
            layout,
            msize,
            offered: 0,
            taken: 0,
            told: 0,
        };
        queue.memory.store(layout.available(), NO_INTERRUPT)?;
        qtest.post(format_args!(
            "outl {:#x} {:#x}",
            port + QUEUE_PAGE,
            base / PAGE
        ))?;
        qtest.call(format_args!(
            "outb {:#x} {STATUS_DRIVER_OK:#x}",
            port + STATUS
        ))?;
        Ok(queue)
    }
}

struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn octets(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.address.to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12..14].copy_from_slice(&self.flags.to_le_bytes());
        out[14..].copy_from_slice(&self.next.to_le_bytes());
        out
    }
}

/// The ring of a device that runs. Indices count up for ever and wrap at 65536.
#[derive(Debug)]
pub(crate) struct Queue {
    port: u16,
    memory: Rc<GuestMemory>,
    layout: Layout,
    msize: u32,
    offered: u16,
    taken: u16,
    /// What `offered` was when the doorbell was last rung.
    told: u16,
}

impl Queue {
    /// Octets that a request and a reply may have.
    pub(crate) fn msize(&self) -> u32 {
        self.msize
    }

    /// Places a request; the device learns of it at the next [`Queue::ring`].
    pub(crate) fn offer(&mut self, slot: Slot, request: &[u8]) -> Result<()> {
        let length = u32::try_from(request.len())
            .ok()
            .filter(|&length| length <= self.msize)
            .ok_or_else(|| {
                Error::Protocol(format!(
                    "request of {} octets, msize is {}",
                    request.len(),
                    self.msize
                ))
            })?;
        self.memory.write(self.layout.request(slot), request)?;
        let first = Descriptor {
            address: self.layout.request(slot),
            length,
            flags: DESC_NEXT,
            next: 1,
        };
        self.memory
            .write(self.layout.indirect(slot), &first.octets())?;
        let entry = self.layout.available() + 4 + 2 * u64::from(self.offered % RING_SIZE);
        self.memory.store(entry, slot.0)?;
        self.offered = self.offered.wrapping_add(1);
        self.memory.store(self.layout.available() + 2, self.offered)
    }

    /// Tells the device of what was offered, unless it is looking anyway.
    pub(crate) fn ring(&mut self, qtest: &mut Qtest) -> Result<()> {
        if self.told == self.offered {
            return Ok(());
        }
        self.told = self.offered;
        if self.memory.load(self.layout.used())? & NO_NOTIFY == 0 {
            qtest.post(format_args!("outw {:#x} 0x0", self.port + QUEUE_NOTIFY))?;
        }
        qtest.flush()
    }

    /// A request that the device is done with, and the octets of its reply.
    pub(crate) fn take(&mut self) -> Result<Option<(Slot, u32)>> {
        if self.memory.load(self.layout.used() + 2)? == self.taken {
            return Ok(None);
        }
        let mut entry = [0; 8];
        self.memory.read(
            self.layout.used() + 4 + 8 * u64::from(self.taken % RING_SIZE),
            &mut entry,
        )?;
        self.taken = self.taken.wrapping_add(1);
        let [a, b, c, d, length @ ..] = entry;
        let id = u32::from_le_bytes([a, b, c, d]);
        let length = u32::from_le_bytes(length);
        match u16::try_from(id) {
            Ok(id) if id < RING_SIZE && length <= self.msize => Ok(Some((Slot(id), length))),
            _ => Err(Error::Protocol(format!(
                "the device returned entry {id} with {length} octets"
            ))),
        }
    }

    /// Asks for an interrupt when the next request is done, or for none.
    pub(crate) fn want_interrupts(&self, wanted: bool) -> Result<()> {
        self.memory.store(
            self.layout.available(),
            if wanted { 0 } else { NO_INTERRUPT },
        )
    }

    /// Copies a reply out.
    pub(crate) fn reply(&self, slot: Slot, bytes: &mut [u8]) -> Result<()> {
        self.memory.read(self.layout.reply(slot), bytes)
    }
}
