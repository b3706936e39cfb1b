//! AMX: a unit of some x86 CPUs that multiplies tiles of 16 rows of 64 bytes, and so does in a few instructions what takes the
//! others hundreds. It pays for so many rows that arithmetic, not memory, takes the time.
//!
//! The compiler's own functions for it are not stable; what is needed are seven instructions.

use std::{
    arch::{asm, x86_64::*},
    mem::MaybeUninit,
    sync::OnceLock,
};

use super::{GROUP, Int8Block, PANEL, Tile, WORD};

/// Rows of a tile of the unit.
pub(super) const ROWS: usize = 16;

/// Words of a row of it: so many blocks of weights make a tile.
pub(super) const WORDS: usize = 16;

/// From so many rows on.
pub(super) const WORTH_IT: usize = 8;

/// Whether the CPU has the unit, the system keeps its registers, and this process was given leave to use it (asked for once).
pub(super) fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| has_unit() && leave())
}

fn has_unit() -> bool {
    const TILES_AND_BYTES: u32 = 1 << 24 | 1 << 25;
    const REGISTERS: u64 = 1 << 17 | 1 << 18;
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("xsave")
        && __cpuid(0).eax >= 7
        && __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES
        // SAFETY: a CPU with AVX-512 whose system uses XSAVE has the instruction.
        && unsafe { _xgetbv(0) } & REGISTERS == REGISTERS
}

/// Linux gives a process the 8 KB of registers when it asks for them.
#[cfg(target_os = "linux")]
fn leave() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: this system call reads and writes no memory of the process.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn leave() -> bool {
    false
}

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

/// Makes the eight tiles of this thread 16 rows of 64 bytes each.
///
/// # Safety
///
/// The unit must be `allowed`.
pub(super) unsafe fn configure() {
    let (mut bytes_of_row, mut rows) = ([0; 16], [0; 16]);
    bytes_of_row[..8].fill((WORDS * WORD) as u16);
    rows[..8].fill(ROWS as u8);
    let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes_of_row, rows };
    // SAFETY: the instruction reads these 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags)) };
}

/// Gives the registers back, so that the system need not keep them.
///
/// # Safety
///
/// The unit must be `allowed`.
pub(super) unsafe fn release() {
    // SAFETY: the instruction touches nothing but the unit's registers.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Sums or totals of two tiles of rows times the outputs of a panel.
#[repr(C, align(64))]
struct Panel<T>([[MaybeUninit<T>; PANEL]; 2 * ROWS]);

impl<T: Copy> Panel<T> {
    #[inline(always)]
    fn new() -> Self {
        Self([[MaybeUninit::uninit(); PANEL]; 2 * ROWS])
    }
}

/// Up to 32 rows, whose words are `[rows, words]` with rows of zeros up to a multiple of 16.
///
/// # Safety
///
/// The unit must be `allowed` and this thread's tiles configured; the words of a row and the blocks of the panel must be as many, a
/// multiple of 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn amx(
    tile: &Tile<'_>,
    panel: &[Int8Block],
    scales: &[f32; PANEL],
    results: &mut [&mut [f32]],
    at: usize,
) {
    let (mut sums, mut totals) = (Panel::<i32>::new(), Panel::<f32>::new());
    let words = panel.len();
    for (group, blocks) in panel.chunks(GROUP / WORD).enumerate() {
        let inputs = &tile.words[group * (GROUP / WORD)..];
        // SAFETY: `[rows, words]` hold, from the first word of the group on, what is read of each row.
        unsafe {
            if tile.rows > ROWS {
                multiply_32(inputs, words, blocks, size_of_val(panel), &mut sums);
            } else {
                multiply_16(inputs, words, blocks, size_of_val(panel), &mut sums);
            }
        }
        let factors = tile.scales[group * tile.rows..].iter().zip(&tile.offsets[group * tile.rows..]);
        for ((sums, totals), (&scale, &offset)) in sums.0.iter().zip(&mut totals.0).zip(factors).take(tile.rows) {
            let (scale, offset) = (_mm512_set1_ps(scale), _mm512_set1_epi32(offset));
            for v in (0..PANEL).step_by(16) {
                // SAFETY: 16 entries are read and written from `v` on, of `PANEL`: sums that were written above, and totals that were
                // for the group before.
                unsafe {
                    let sums = _mm512_add_epi32(_mm512_load_si512(sums.as_ptr().add(v).cast()), offset);
                    let total = totals.as_mut_ptr().add(v).cast();
                    let before = if group == 0 { _mm512_setzero_ps() } else { _mm512_load_ps(total) };
                    _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, before));
                }
            }
        }
    }
    for (totals, result) in totals.0.iter().zip(results) {
        let to = &mut result[at..at + PANEL];
        for v in (0..PANEL).step_by(16) {
            // SAFETY: as above; there is a result for each row of the tile, whose totals have been written.
            unsafe {
                let (totals, scales) = (totals.as_ptr().add(v).cast(), _mm512_loadu_ps(scales.as_ptr().add(v)));
                _mm512_storeu_ps(to.as_mut_ptr().add(v), _mm512_mul_ps(_mm512_load_ps(totals), scales));
            }
        }
    }
}

/// Asks for cache lines so many bytes further ahead.
macro_rules! ahead {
    ($($bytes:literal)*) => {
        concat!($("prefetcht1 [{blocks} + {ahead} + ", $bytes, "]\n"),*)
    };
}

/// The sums of the products of 16 rows with the outputs of a panel, for the inputs of some blocks. Meanwhile memory is asked for what
/// lies `ahead` bytes after the blocks.
///
/// # Safety
///
/// The unit must be `allowed` and this thread's tiles configured; from each of 16 rows, `words` words apart, as many words may be read
/// as there are blocks, a multiple of 16.
unsafe fn multiply_16(inputs: &[i32], words: usize, blocks: &[Int8Block], ahead: usize, sums: &mut Panel<i32>) {
    // SAFETY: reads and writes are those that the caller allows; the compiler itself never uses the unit's registers.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm4, [{inputs} + {row}]",
            "tileloadd tmm6, [{blocks} + {block}]",
            ahead!(0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960),
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{blocks} + {block} + 64]",
            ahead!(1024 1088 1152 1216 1280 1344 1408 1472 1536 1600 1664 1728 1792 1856 1920 1984),
            "tdpbsud tmm1, tmm4, tmm7",
            "add {inputs}, 64",
            "add {blocks}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {block}], tmm0",
            "tilestored [{sums} + {block} + 64], tmm1",
            inputs = inout(reg) inputs.as_ptr() => _,
            row = in(reg) words * WORD,
            blocks = inout(reg) blocks.as_ptr() => _,
            block = in(reg) size_of::<Int8Block>(),
            ahead = in(reg) ahead,
            steps = inout(reg) blocks.len() / WORDS => _,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The same for 32 rows: each tile of weights is loaded once for both halves.
///
/// # Safety
///
/// As above, for 32 rows.
unsafe fn multiply_32(inputs: &[i32], words: usize, blocks: &[Int8Block], ahead: usize, sums: &mut Panel<i32>) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{first} + {row}]",
            "tileloadd tmm6, [{blocks} + {block}]",
            ahead!(0 64 128 192 256 320 384 448),
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{blocks} + {block} + 64]",
            ahead!(512 576 640 704 768 832 896 960),
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{second} + {row}]",
            ahead!(1024 1088 1152 1216 1280 1344 1408 1472),
            "tdpbsud tmm2, tmm5, tmm6",
            ahead!(1536 1600 1664 1728 1792 1856 1920 1984),
            "tdpbsud tmm3, tmm5, tmm7",
            "add {first}, 64",
            "add {second}, 64",
            "add {blocks}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {block}], tmm0",
            "tilestored [{sums} + {block} + 64], tmm1",
            "tilestored [{sums} + {block} + 2048], tmm2",
            "tilestored [{sums} + {block} + 2112], tmm3",
            first = inout(reg) inputs.as_ptr() => _,
            second = inout(reg) inputs.as_ptr().wrapping_add(ROWS * words) => _,
            row = in(reg) words * WORD,
            blocks = inout(reg) blocks.as_ptr() => _,
            block = in(reg) size_of::<Int8Block>(),
            ahead = in(reg) ahead,
            steps = inout(reg) blocks.len() / WORDS => _,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
