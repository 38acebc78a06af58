//! What must be true of a library before `dlopen` is let near it. Nothing here trusts a byte of the file.

use crate::manifest::{self, Manifest, SECTION};
use crate::open::Opened;
use crate::refusal::{Reason, Refusal, command};
use object::elf::{DF_1_PIE, DT_FLAGS_1, ET_DYN, Machine, PT_DYNAMIC, PT_LOAD, SHT_DYNSYM};
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
pub(crate) fn check_machine(opened: &Opened) -> Result<(), Refusal> {
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
            "something else",
            command("file", path),
        )),
    }
}

/// Looks at the whole of a library's structure, and reads its manifest.
pub(crate) fn check_library(opened: &Opened) -> Result<Manifest, Refusal> {
    check_machine(opened)?;
    let path = &opened.path;
    let file = opened
        .file
        .try_clone()
        .map_err(|error| damaged(path, &error.to_string()))?;
    let cache = ReadCache::new(File::from(file));
    let library = Library {
        path,
        data: &cache,
        size: opened.size,
        header: Header::parse(&cache).map_err(|error| damaged(path, &error.to_string()))?,
    };
    library.segments()?;
    let sections = library.sections()?;
    library.glibc(&sections)?;
    let manifest = library.manifest(&sections)?;
    library.symbol(&sections)?;
    library.search(&sections)?;
    Ok(manifest)
}

/// A library as it is read.
pub(crate) struct Library<'a, R: ReadRef<'a>> {
    pub(crate) path: &'a Path,
    pub(crate) data: R,
    size: u64,
    header: &'a Header,
}

impl<'a, R: ReadRef<'a>> Library<'a, R> {
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

    /// Refuses a range that is not inside the file: a library that ends early kills the process that maps it.
    fn inside(&self, what: &str, offset: u64, size: u64) -> Result<(), Refusal> {
        match offset.checked_add(size) {
            Some(end) if end <= self.size => Ok(()),
            end => Err(self.truncated(what, end)),
        }
    }

    fn segments(&self) -> Result<(), Refusal> {
        if self.header.e_type(NativeEndian) != ET_DYN {
            return Err(self.not_a_library("an ELF file of another type"));
        }
        let at = self.header.e_phoff(NativeEndian);
        let entry = u64::from(self.header.e_phentsize(NativeEndian));
        let count = u64::from(self.header.e_phnum(NativeEndian));
        self.inside("the program headers", at, entry * count)?;
        let segments = self
            .header
            .program_headers(NativeEndian, self.data)
            .map_err(|error| self.damaged(&error))?;
        let (mut loads, mut dynamics) = (0, 0);
        for segment in segments {
            let (offset, size) = segment.file_range(NativeEndian);
            self.inside("every program segment", offset, size)?;
            let kind = segment.p_type(NativeEndian);
            if kind == PT_LOAD {
                loads += 1;
                self.loadable(segment)?;
            } else if kind == PT_DYNAMIC {
                dynamics += 1;
                self.not_a_program(segment)?;
            }
        }
        if loads == 0 || dynamics != 1 {
            return Err(self.not_a_library("an ELF file without what a loader needs"));
        }
        Ok(())
    }

    fn loadable(&self, segment: &<Header as FileHeader>::ProgramHeader) -> Result<(), Refusal> {
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
    fn not_a_program(
        &self,
        segment: &<Header as FileHeader>::ProgramHeader,
    ) -> Result<(), Refusal> {
        let entries = segment
            .dynamic(NativeEndian, self.data)
            .map_err(|error| self.damaged(&error))?
            .unwrap_or_default();
        let is_program = entries.iter().any(|entry| {
            let (tag, value) = (entry.d_tag(NativeEndian), entry.d_val(NativeEndian));
            tag == DT_FLAGS_1 && value & DF_1_PIE.0 != 0
        });
        if is_program {
            return Err(self.not_a_library("a program: its `kind` is \"exec\""));
        }
        Ok(())
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
