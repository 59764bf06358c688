//! PCI configuration through ports 0xcf8 and 0xcfc (PCI Local Bus 3.0, 3.2.2.3.2), as firmware would do it.

use crate::error::Result;
use crate::qtest::Qtest;

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;

/// Vendor 0x1af4 (Red Hat), device 0x1009: the transitional virtio 9P transport (virtio 1.2, 4.1.2.1).
const VIRTIO_9P: u32 = 0x1009_1af4;
/// PIIX3, the pc machine's ISA bridge, which routes the four PCI interrupts.
const PIIX3: u32 = 0x7000_8086;
const PIIX3_PIRQ_ROUTES: u8 = 0x60;

const COMMAND: u8 = 0x04;
const COMMAND_IO_AND_BUS_MASTER: u32 = 0x5;
const BAR0: u8 = 0x10;

/// All devices share this interrupt.
const INTERRUPT: u32 = 11;

/// Where the legacy registers of the first device go; the others follow, 256 ports apart.
const FIRST_PORT: u16 = 0xc000;
const PORTS_EACH: u16 = 0x100;

/// Gives each virtio-9p device of bus 0 its ports and its right to write memory; returns the ports. Routes all
/// interrupts to one line and lets qtest tell of it.
pub(crate) fn enable_9p_devices(qtest: &mut Qtest) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    let mut next = FIRST_PORT;
    for slot in 0..32 {
        match read(qtest, slot, 0)? {
            PIIX3 => {
                let each_byte = INTERRUPT * 0x0101_0101;
                write(qtest, slot, PIIX3_PIRQ_ROUTES, each_byte)?;
            }
            VIRTIO_9P => {
                write(qtest, slot, BAR0, next.into())?;
                write(qtest, slot, COMMAND, COMMAND_IO_AND_BUS_MASTER)?;
                ports.push(next);
                next += PORTS_EACH;
            }
            _ => {}
        }
    }
    qtest.call(format_args!("irq_intercept_in ioapic"))?;
    Ok(ports)
}

fn select(qtest: &mut Qtest, slot: u32, register: u8) -> Result<()> {
    let address = 0x8000_0000 | slot << 11 | u32::from(register);
    qtest.post(format_args!("outl {ADDRESS_PORT:#x} {address:#x}"))
}

fn read(qtest: &mut Qtest, slot: u32, register: u8) -> Result<u32> {
    select(qtest, slot, register)?;
    // A four-octet port cannot answer more.
    Ok(u32::try_from(qtest.call(format_args!("inl {DATA_PORT:#x}"))?).unwrap_or(u32::MAX))
}

fn write(qtest: &mut Qtest, slot: u32, register: u8, value: u32) -> Result<()> {
    select(qtest, slot, register)?;
    qtest.post(format_args!("outl {DATA_PORT:#x} {value:#x}"))
}
