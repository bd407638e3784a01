//! Functions of Salt that a template cannot call here, each with what to use instead: they change a host, and a plan changes nothing; or they
//! need what does not exist (a master, a secret store).

use crate::diagnostic::{Code, Diagnostic};

/// Functions that change a host, as `module.function` or with `*` at the end, and the state that says the same.
const CHANGES: &[(&str, &str)] = &[
    ("alternatives.auto", "alternatives.auto"),
    ("alternatives.install", "alternatives.install"),
    ("alternatives.remove", "alternatives.remove"),
    ("alternatives.set", "alternatives.set"),
    ("archive.*", "archive.extracted"),
    ("cp.cache_dir", "file.recurse"),
    ("cp.cache_file", "file.managed"),
    ("cp.cache_files", "file.managed"),
    ("cp.cache_local_file", "file.managed"),
    ("cp.cache_master", "file.recurse"),
    ("cp.get_dir", "file.recurse"),
    ("cp.get_file", "file.managed"),
    ("cp.get_template", "file.managed"),
    ("cp.get_url", "file.managed"),
    ("cp.push*", "cmd.run"),
    ("cron.rm*", "cron.absent"),
    ("cron.set_env", "cron.env_present"),
    ("cron.set_*", "cron.present"),
    ("cron.write_cron*", "cron.file"),
    ("debconf.set*", "debconf.set"),
    ("environ.set*", "environ.setenv"),
    ("event.*", "event.send"),
    ("file.append", "file.append"),
    ("file.blockreplace", "file.blockreplace"),
    ("file.chgrp", "file.managed"),
    ("file.chown", "file.managed"),
    ("file.comment*", "file.comment"),
    ("file.copy", "file.copy"),
    ("file.delete_backup", "file.absent"),
    ("file.lchown", "file.symlink"),
    ("file.line", "file.line"),
    ("file.link", "file.hardlink"),
    ("file.make*", "file.directory"),
    ("file.manage_file", "file.managed"),
    ("file.mkdir", "file.directory"),
    ("file.mknod*", "file.mknod"),
    ("file.move", "file.rename"),
    ("file.patch", "file.patch"),
    ("file.prepend", "file.prepend"),
    ("file.psed", "file.replace"),
    ("file.remove", "file.absent"),
    ("file.rename", "file.rename"),
    ("file.replace", "file.replace"),
    ("file.restore*", "file.managed"),
    ("file.rmdir", "file.absent"),
    ("file.sed", "file.replace"),
    ("file.set_*", "file.managed"),
    ("file.symlink", "file.symlink"),
    ("file.touch", "file.touch"),
    ("file.truncate", "file.managed"),
    ("file.uncomment", "file.uncomment"),
    ("file.write", "file.managed"),
    ("git.add", "git.latest"),
    ("git.checkout", "git.latest"),
    ("git.clone", "git.cloned"),
    ("git.config_set", "git.config_set"),
    ("git.pull", "git.latest"),
    ("grains.append", "grains.list_present"),
    ("grains.delkey", "grains.absent"),
    ("grains.delval", "grains.absent"),
    ("grains.remove", "grains.list_absent"),
    ("grains.set*", "grains.present"),
    ("group.add", "group.present"),
    ("group.adduser", "group.present"),
    ("group.chgid", "group.present"),
    ("group.delete", "group.absent"),
    ("group.deluser", "group.present"),
    ("group.members", "group.present"),
    ("hosts.*_host", "host.present"),
    ("ini.remove_*", "ini.options_absent"),
    ("ini.set_option", "ini.options_present"),
    ("iptables.append", "iptables.append"),
    ("iptables.delete", "iptables.delete"),
    ("iptables.flush", "iptables.flush"),
    ("iptables.insert", "iptables.insert"),
    ("kmod.load", "kmod.present"),
    ("kmod.remove", "kmod.absent"),
    ("locale.gen_locale", "locale.present"),
    ("locale.set_locale", "locale.system"),
    ("mine.send", "mine_functions in pillar or roster"),
    ("mount.mount", "mount.mounted"),
    ("mount.set_*", "mount.mounted"),
    ("mount.swapo*", "mount.swap"),
    ("mount.umount", "mount.unmounted"),
    ("network.mod_*", "network.system"),
    ("pip.install", "pip.installed"),
    ("pip.uninstall", "pip.removed"),
    ("pkg.autoremove", "pkg.removed"),
    ("pkg.del_repo", "pkgrepo.absent"),
    ("pkg.hold", "pkg.held"),
    ("pkg.install", "pkg.installed"),
    ("pkg.mod_repo", "pkgrepo.managed"),
    ("pkg.purge", "pkg.purged"),
    ("pkg.refresh_db", "pkg.installed with `refresh: True`"),
    ("pkg.remove", "pkg.removed"),
    ("pkg.unhold", "pkg.unheld"),
    ("pkg.upgrade", "pkg.uptodate"),
    ("schedule.*", "cron.present"),
    ("selinux.set*", "selinux.boolean"),
    ("service.disable", "service.disabled"),
    ("service.enable", "service.enabled"),
    ("service.force_reload", "service.running with `watch`"),
    ("service.full_restart", "service.running with `watch`"),
    ("service.mask", "service.masked"),
    ("service.reload", "service.running with `watch` and `reload: True`"),
    ("service.restart", "service.running with `watch`"),
    ("service.start", "service.running"),
    ("service.stop", "service.dead"),
    ("service.systemctl_reload", "service.running with `watch`"),
    ("service.unmask", "service.unmasked"),
    ("shadow.del_password", "user.present"),
    ("shadow.lock_password", "user.present"),
    ("shadow.set_*", "user.present"),
    ("shadow.unlock_password", "user.present"),
    ("ssh.rm_auth_key*", "ssh_auth.absent"),
    ("ssh.rm_known_host", "ssh_known_hosts.absent"),
    ("ssh.set_auth_key*", "ssh_auth.present"),
    ("ssh.set_known_host", "ssh_known_hosts.present"),
    ("sysctl.assign", "sysctl.present"),
    ("sysctl.persist", "sysctl.present"),
    ("timezone.set_*", "timezone.system"),
    ("user.add", "user.present"),
    ("user.ch*", "user.present"),
    ("user.delete", "user.absent"),
    ("user.rename", "user.present"),
    ("virtualenv.create", "virtualenv.managed"),
    ("x509.create_*", "x509.certificate_managed"),
];

/// What a master, or a service beside it, would answer.
const ELSEWHERE: &[(&str, &str)] = &[
    ("consul.", "keep the value in pillar"),
    ("etcd.", "keep the value in pillar"),
    ("peer.", "mine.get reads what other hosts know"),
    ("publish.", "mine.get reads what other hosts know"),
    ("saltutil.", "mine.get reads what other hosts know; other runners and wheel modules need a master"),
    ("sdb.", "keep the value in pillar, encrypted where it is a secret"),
    ("state.", "include the SLS in the highstate, or give it with `--sls`"),
    ("vault.", "keep the secret in encrypted pillar"),
];

/// Why templates cannot call a function, where that is known of it.
pub fn refused(name: &str) -> Option<Diagnostic> {
    let fits = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
        None => name == pattern,
    };
    if let Some((_, instead)) = CHANGES.iter().find(|(pattern, _)| fits(pattern)) {
        let fault = Diagnostic::new(Code::Template, format!("{name} changes a host, and templates are rendered while a plan is made"));
        return Some(fault.hint(if instead.contains("mine_functions") {
            format!("{instead} say the same")
        } else {
            format!("the state {instead} says the same, and the plan shows it before it happens")
        }));
    }
    let (_, instead) = ELSEWHERE.iter().find(|(module, _)| name.starts_with(module))?;
    Some(Diagnostic::new(Code::Template, format!("{name} is not there: nothing here answers it")).hint(*instead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_host_names_the_state_to_use() {
        let hint = |name: &str| refused(name).and_then(|d| d.hint).unwrap_or_default();
        assert!(hint("file.write").starts_with("the state file.managed says the same"));
        assert!(
            hint("file.chown").contains("file.managed") && hint("file.check_managed").is_empty() && hint("file.check_perms").is_empty()
        );
        assert!(hint("service.restart").contains("service.running with `watch`"));
        assert!(hint("grains.setval").contains("grains.present") && hint("hosts.add_host").contains("host.present"));
        assert!(hint("vault.read_secret").contains("encrypted pillar") && hint("state.apply").contains("--sls"));
        for looks in ["file.file_exists", "file.contains", "cron.list_tab", "service.status", "mount.fstab", "user.info", "git.ls_remote"] {
            assert!(refused(looks).is_none(), "{looks}");
        }
    }

    #[test]
    fn nothing_that_is_answered_is_refused() {
        // Of saltutil the tables have what does nothing, and the rest is refused.
        for (name, _) in super::super::tables().into_iter().flatten().filter(|(name, _)| !name.starts_with("saltutil.")) {
            assert!(refused(name).is_none(), "{name}");
        }
    }
}
