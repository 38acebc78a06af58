//! What must be true of a library before `dlopen` is let near it, and of a program before it is run. Nothing here trusts a byte of the file.

use crate::manifest::{self, Manifest, SECTION};
use crate::open::Opened;
use crate::refusal::{Reason, Refusal, command};
use object::elf::{
    DF_1_PIE, DT_FLAGS_1, ET_DYN, ET_EXEC, Machine, PT_DYNAMIC, PT_INTERP, PT_LOAD, SHT_DYNSYM,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{NativeEndian, ReadCache, ReadRef, elf};
use rustix::fd::AsFd;
use rustix::io::pread;
use std::fs::File;
use std::path::Path;

/// alpine is for 64-bit machines.
pub(crate) type Header = elf::FileHeader64<NativeEndian>;

/// The one symbol that a library exports.
const SYMBOL: &[u8] = b"alpine_provider_v1";

/// What an ELF file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    bits: u8,
    endian: u8,
    machine: u16,
}

/// This program's own.
const OURS: Target = Target {
    bits: 2,
    endian: if cfg!(target_endian = "little") { 1 } else { 2 },
    machine: if cfg!(target_arch = "x86_64") {
        elf::EM_X86_64.0
    } else if cfg!(target_arch = "aarch64") {
        elf::EM_AARCH64.0
    } else if cfg!(target_arch = "riscv64") {
        elf::EM_RISCV.0
    } else {
        elf::EM_NONE.0
    },
};

impl Target {
    /// Reads the first bytes of a file; none when it is no ELF file.
    fn of(first: &[u8; 20]) -> Option<Self> {
        let (bits, endian) = (first[4], first[5]);
        let machine = [first[18], first[19]];
        (first[..4] == elf::ELFMAG).then_some(Self {
            bits,
            endian,
            machine: if endian == 2 {
                u16::from_be_bytes(machine)
            } else {
                u16::from_le_bytes(machine)
            },
        })
    }

    fn told(self) -> String {
        let bits = match self.bits {
            1 => "32-bit",
            2 => "64-bit",
            _ => "malformed",
        };
        let endian = match self.endian {
            1 => "little-endian",
            2 => "big-endian",
            _ => "malformed",
        };
        format!("{bits} {endian} {}", machine(self.machine))
    }
}

fn machine(number: u16) -> String {
    let known = match Machine(number) {
        elf::EM_386 => "x86",
        elf::EM_X86_64 => "x86_64",
        elf::EM_ARM => "arm",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC64 => "ppc64",
        elf::EM_S390 => "s390",
        _ => return format!("machine {number}"),
    };
    known.to_owned()
}

/// Whether the file begins as an ELF file does.
pub(crate) fn is_elf(opened: &Opened) -> bool {
    first(opened).is_some_and(|first| Target::of(&first).is_some())
}

fn first(opened: &Opened) -> Option<[u8; 20]> {
    let mut first = [0; 20];
    // A read of a regular file from its start is short only at its end.
    let read = pread(opened.file.as_fd(), &mut first, 0).ok()?;
    (read == first.len()).then_some(first)
}

/// Refuses a file that is not for this machine.
fn check_machine(opened: &Opened) -> Result<(), Refusal> {
    let path = &opened.path;
    let target = first(opened).and_then(|first| Target::of(&first));
    match target {
        Some(target) if target == OURS => Ok(()),
        Some(target) => Err(Refusal::new(
            Reason::Machine,
            path,
            format!("a file for {}", OURS.told()),
            format!("one for {}: build it for this machine", target.told()),
            command("file", path),
        )),
        None => Err(Refusal::new(
            Reason::NotElf,
            path,
            "an ELF file",
            "something else: give the file that the linker made",
            command("file", path),
        )),
    }
}

/// Looks at the whole of a library's structure, and reads its manifest.
pub(crate) fn check_library(opened: &Opened) -> Result<Manifest, Refusal> {
    check_machine(opened)?;
    let cache = cache(opened)?;
    let library = Image::new(opened, &cache)?;
    library.is_library()?;
    let sections = library.sections()?;
    library.library_glibc(&sections)?;
    let manifest = library.manifest(&sections)?;
    library.symbol(&sections)?;
    library.search(&sections)?;
    Ok(manifest)
}

/// Looks at what a program needs to be run.
pub(crate) fn check_program(opened: &Opened) -> Result<(), Refusal> {
    check_machine(opened)?;
    let cache = cache(opened)?;
    let program = Image::new(opened, &cache)?;
    program.is_program()?;
    let sections = program.sections()?;
    program.program_glibc(&sections)
}

fn cache(opened: &Opened) -> Result<ReadCache<File>, Refusal> {
    let file = opened.file.try_clone();
    let file = file.map_err(|error| damaged(&opened.path, &error.to_string()))?;
    Ok(ReadCache::new(File::from(file)))
}

/// A library or a program as it is read.
pub(crate) struct Image<'a, R: ReadRef<'a>> {
    pub(crate) path: &'a Path,
    pub(crate) data: R,
    size: u64,
    header: &'a Header,
}

type Segment = <Header as FileHeader>::ProgramHeader;

impl<'a, R: ReadRef<'a>> Image<'a, R> {
    fn new(opened: &'a Opened, data: R) -> Result<Self, Refusal> {
        let path = &opened.path;
        Ok(Self {
            path,
            data,
            size: opened.size,
            header: Header::parse(data).map_err(|error| damaged(path, &error.to_string()))?,
        })
    }

    pub(crate) fn damaged(&self, what: &dyn std::fmt::Display) -> Refusal {
        damaged(self.path, &what.to_string())
    }

    fn truncated(&self, what: &str, end: Option<u64>) -> Refusal {
        let end = end.map_or("past any file's end".to_owned(), |end| end.to_string());
        Refusal::new(
            Reason::Truncated,
            self.path,
            format!("{what} inside the file of {} bytes", self.size),
            format!("its end at byte {end}: it is not whole, copy or build it again"),
            command("ls -l", self.path),
        )
    }

    /// Refuses a range that is not inside the file: what ends early kills the process that maps it.
    fn inside(&self, what: &str, offset: u64, size: u64) -> Result<(), Refusal> {
        match offset.checked_add(size) {
            Some(end) if end <= self.size => Ok(()),
            end => Err(self.truncated(what, end)),
        }
    }

    /// The program segments, each inside the file and of a size that makes sense.
    pub(crate) fn segments(&self) -> Result<&'a [Segment], Refusal> {
        let at = self.header.e_phoff(NativeEndian);
        let entry = u64::from(self.header.e_phentsize(NativeEndian));
        let count = u64::from(self.header.e_phnum(NativeEndian));
        self.inside("the program headers", at, entry * count)?;
        let segments = self
            .header
            .program_headers(NativeEndian, self.data)
            .map_err(|error| self.damaged(&error))?;
        for segment in segments {
            let (offset, size) = segment.file_range(NativeEndian);
            self.inside("every program segment", offset, size)?;
            if segment.p_type(NativeEndian) == PT_LOAD {
                self.loadable(segment)?;
            }
        }
        Ok(segments)
    }

    fn is_library(&self) -> Result<(), Refusal> {
        if self.header.e_type(NativeEndian) != ET_DYN {
            return Err(self.not_a_library("an ELF file of another type"));
        }
        let segments = self.segments()?;
        let of = |kind| {
            let is_of = move |segment: &&Segment| segment.p_type(NativeEndian) == kind;
            segments.iter().filter(is_of)
        };
        for dynamic in of(PT_DYNAMIC) {
            self.not_a_program(dynamic)?;
        }
        if of(PT_LOAD).count() == 0 || of(PT_DYNAMIC).count() != 1 {
            return Err(self.not_a_library("an ELF file without what a loader needs"));
        }
        Ok(())
    }

    fn is_program(&self) -> Result<(), Refusal> {
        let kind = self.header.e_type(NativeEndian);
        let is_load = |segment: &Segment| segment.p_type(NativeEndian) == PT_LOAD;
        let refuse = |found| {
            let look = command("file", self.path);
            Refusal::new(Reason::NotExecutable, self.path, "a program", found, look)
        };
        if !(kind == ET_DYN || kind == ET_EXEC) || !self.segments()?.iter().any(is_load) {
            return Err(refuse("an ELF file of another type"));
        }
        if kind == ET_DYN && !self.is_placed_program()? {
            return Err(refuse("a shared library: its `kind` is \"dylib\""));
        }
        Ok(())
    }

    /// A program that can be loaded anywhere has a loader, or says what it is.
    fn is_placed_program(&self) -> Result<bool, Refusal> {
        for segment in self.segments()? {
            let kind = segment.p_type(NativeEndian);
            if kind == PT_INTERP || kind == PT_DYNAMIC && self.is_pie(segment)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn loadable(&self, segment: &Segment) -> Result<(), Refusal> {
        let (_, in_file) = segment.file_range(NativeEndian);
        let in_memory = segment.p_memsz(NativeEndian);
        let end = segment.p_vaddr(NativeEndian).checked_add(in_memory);
        let align = segment.p_align(NativeEndian);
        let sane = in_file <= in_memory && end.is_some() && (align == 0 || align.is_power_of_two());
        if sane {
            Ok(())
        } else {
            Err(self.damaged(&"a program segment makes no sense"))
        }
    }

    /// A program that can be loaded anywhere looks much like a library.
    fn not_a_program(&self, segment: &Segment) -> Result<(), Refusal> {
        if self.is_pie(segment)? {
            return Err(self.not_a_library("a program: its `kind` is \"exec\""));
        }
        Ok(())
    }

    fn is_pie(&self, segment: &Segment) -> Result<bool, Refusal> {
        let entries = segment
            .dynamic(NativeEndian, self.data)
            .map_err(|error| self.damaged(&error))?
            .unwrap_or_default();
        Ok(entries.iter().any(|entry| {
            let (tag, value) = (entry.d_tag(NativeEndian), entry.d_val(NativeEndian));
            tag == DT_FLAGS_1 && value & DF_1_PIE.0 != 0
        }))
    }

    fn not_a_library(&self, found: &str) -> Refusal {
        Refusal::new(
            Reason::NotALibrary,
            self.path,
            "a shared library",
            found,
            command("file", self.path),
        )
    }

    fn sections(&self) -> Result<SectionTable<'a, Header, R>, Refusal> {
        let at = self.header.e_shoff(NativeEndian);
        let entry = u64::from(self.header.e_shentsize(NativeEndian));
        let count = u64::from(self.header.e_shnum(NativeEndian));
        self.inside("the section table", at, entry * count)?;
        let sections = self
            .header
            .sections(NativeEndian, self.data)
            .map_err(|error| self.damaged(&error))?;
        for section in sections.iter() {
            if let Some((offset, size)) = section.file_range(NativeEndian) {
                self.inside("every section", offset, size)?;
            }
        }
        Ok(sections)
    }

    fn manifest(&self, sections: &SectionTable<'a, Header, R>) -> Result<Manifest, Refusal> {
        let refuse = |found: String| {
            Refusal::new(
                Reason::NoManifest,
                self.path,
                format!(
                    "a section `{SECTION}` of at most {} bytes",
                    manifest::LARGEST
                ),
                format!("{found}: build it with the kit, or put the manifest into that section"),
                command("readelf -SW", self.path),
            )
        };
        let (_, section) = sections
            .section_by_name(NativeEndian, SECTION.as_bytes())
            .ok_or_else(|| refuse("none".to_owned()))?;
        let size = section.sh_size(NativeEndian);
        if size > manifest::LARGEST {
            return Err(refuse(format!("one of {size} bytes")));
        }
        let bytes = section
            .data(NativeEndian, self.data)
            .map_err(|error| self.damaged(&error))?;
        Manifest::parse(self.path, bytes)
    }

    /// Refuses a library without the entry point.
    fn symbol(&self, sections: &SectionTable<'a, Header, R>) -> Result<(), Refusal> {
        let symbols = sections
            .symbols(NativeEndian, self.data, SHT_DYNSYM)
            .map_err(|error| self.damaged(&error))?;
        let ours = |symbol: &<Header as FileHeader>::Sym| {
            let strings = symbols.strings();
            symbol.is_definition(NativeEndian, strings)
                && symbol
                    .name(NativeEndian, strings)
                    .is_ok_and(|name| name == SYMBOL)
        };
        if symbols.iter().any(ours) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::NoSymbol,
            self.path,
            "the exported function `alpine_provider_v1`",
            "no such symbol: build it with `export_provider!`, or export that function from C",
            command("nm -D", self.path),
        ))
    }
}

fn damaged(path: &Path, what: &str) -> Refusal {
    Refusal::new(
        Reason::Damaged,
        path,
        "a sound ELF file",
        format!("a damaged one, to be copied or built again: {what}"),
        command("file", path),
    )
}
