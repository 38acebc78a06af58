//! What a library or a program needs of others. They are not checked, but where they are looked for is: never where the tool happens to be.

use crate::elf::{Header, Image};
use crate::glibc::Version;
use crate::refusal::{Reason, Refusal, command};
use object::elf::{DT_AUXILIARY, DT_FILTER, DT_NEEDED, DT_RPATH, DT_RUNPATH};
use object::read::elf::{ProgramHeader, SectionTable};
use object::{NativeEndian, ReadRef};

/// More needs than this no library has.
const MOST_NEEDS: usize = 65_536;
/// The most bytes of a name that a refusal repeats.
const MOST_SHOWN: usize = 200;

impl<'a, R: ReadRef<'a>> Image<'a, R> {
    /// Refuses a library that needs a newer C library than the one that runs here.
    pub(crate) fn library_glibc(
        &self,
        sections: &SectionTable<'a, Header, R>,
    ) -> Result<(), Refusal> {
        match (self.needed(sections)?, Version::running()) {
            (Some(needed), running) if running.is_none_or(|running| needed > running) => {
                Err(self.newer(needed, running))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a program that needs a newer C library than the one that runs here. One that a loader of its own starts, from
    /// elsewhere than this system's, has a C library of its own too.
    pub(crate) fn program_glibc(
        &self,
        sections: &SectionTable<'a, Header, R>,
    ) -> Result<(), Refusal> {
        let mut is_systems = false;
        for segment in self.segments()? {
            let loader = segment
                .interpreter(NativeEndian, self.data)
                .map_err(|error| self.damaged(&error))?;
            is_systems |= loader.is_some_and(|path| path.starts_with(b"/lib"));
        }
        match (self.needed(sections)?, Version::running()) {
            (Some(needed), Some(running)) if is_systems && needed > running => {
                Err(self.newer(needed, Some(running)))
            }
            _ => Ok(()),
        }
    }

    fn newer(&self, needed: Version, running: Option<Version>) -> Refusal {
        Refusal::new(
            Reason::Glibc,
            self.path,
            running.map_or("no need of the GNU C library".to_owned(), |running| {
                format!("a need of GLIBC {running} or older")
            }),
            format!("a need of GLIBC {needed}: build it on a system as old as this one"),
            "ldd --version",
        )
    }

    /// The newest GLIBC that any of its symbols needs.
    fn needed(&self, sections: &SectionTable<'a, Header, R>) -> Result<Option<Version>, Refusal> {
        let damaged = |error: object::read::Error| self.damaged(&error);
        let found = sections
            .gnu_verneed(NativeEndian, self.data)
            .map_err(damaged)?;
        let Some((mut needs, link)) = found else {
            return Ok(None);
        };
        let strings = sections
            .strings(NativeEndian, self.data, link)
            .map_err(damaged)?;
        let (mut newest, mut seen) = (None, 0);
        while let Some((_, mut versions)) = needs.next().map_err(damaged)? {
            while let Some(version) = versions.next().map_err(damaged)? {
                seen += 1;
                if seen > MOST_NEEDS {
                    return Err(self.damaged(&"it needs too many versions"));
                }
                let name = version.name(NativeEndian, strings).map_err(damaged)?;
                newest = newest.max(Version::needed(name));
            }
        }
        Ok(newest)
    }

    /// Refuses a library whose needs are looked for in the working directory, or elsewhere below it. `$ORIGIN` is no better:
    /// a library is opened by its descriptor, so that this stands for `/proc/self/fd`.
    pub(crate) fn search(&self, sections: &SectionTable<'a, Header, R>) -> Result<(), Refusal> {
        let damaged = |error: object::read::Error| self.damaged(&error);
        let table = sections
            .dynamic_table(NativeEndian, self.data)
            .map_err(damaged)?;
        for entry in &table {
            let text = || table.string(entry).map_err(damaged);
            match entry.tag {
                DT_RPATH => self.searched("RPATH", text()?)?,
                DT_RUNPATH => self.searched("RUNPATH", text()?)?,
                DT_NEEDED | DT_FILTER | DT_AUXILIARY => self.named(text()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The directories in which a library's needs are looked for.
    fn searched(&self, kind: &str, directories: &[u8]) -> Result<(), Refusal> {
        let is_absolute = |directory: &&[u8]| directory.starts_with(b"/");
        let mut all = directories.split(|byte| *byte == b':');
        match all.find(|directory| !is_absolute(directory)) {
            None => Ok(()),
            Some(directory) => Err(self.loose(
                "absolute directories alone in which what it needs is looked for",
                &format!("`{}` in its {kind}: link it without", shown(directory)),
            )),
        }
    }

    /// The name of a library that it needs: a path where it has a slash.
    fn named(&self, name: &[u8]) -> Result<(), Refusal> {
        if name.starts_with(b"/") || !name.contains(&b'/') {
            return Ok(());
        }
        Err(self.loose(
            "needs that are plain names or absolute paths",
            &format!(
                "a need of `{}`: give that library a plain `-soname`, and link anew",
                shown(name)
            ),
        ))
    }

    fn loose(&self, expected: &str, found: &str) -> Refusal {
        let look = command("readelf -d", self.path);
        Refusal::new(Reason::Search, self.path, expected, found, look)
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(MOST_SHOWN)]).into_owned()
}
