"""Keywords of ssh_config. OpenSSH refuses a file with an unknown keyword, an invalid flag or surplus arguments."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# yes or no, or one of the further values.
FLAGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        _names("""
        batchmode canonicalizefallbacklocal checkhostip clearallforwardings compression enableescapecommandline
        enablesshkeysign exitonforwardfailure forkafterauthentication forwardx11 forwardx11trusted gatewayports
        gssapiauthentication gssapidelegatecredentials hashknownhosts hostbasedauthentication identitiesonly
        kbdinteractiveauthentication keepalive nohostauthenticationforlocalhost passwordauthentication
        permitlocalcommand proxyusefdpass stdinnull streamlocalbindunlink tcpkeepalive visualhostkey
        challengeresponseauthentication skeyauthentication tisauthentication dsaauthentication warnweakcrypto
        """),
        (),
    ),
    "canonicalizehostname": ("always", "none"),
    "controlmaster": ("ask", "auto", "autoask"),
    "pubkeyauthentication": ("unbound", "host-bound"),
    "requesttty": ("force", "auto"),
    "stricthostkeychecking": ("ask", "accept-new", "off"),
    "tunnel": ("ethernet", "point-to-point"),
    "updatehostkeys": ("ask",),
    "verifyhostkeydns": ("ask",),
}

# The value is the rest of the line.
COMMANDS = _names("knownhostscommand localcommand proxycommand proxyjump remotecommand")

# Several arguments, or arguments that differ between versions of OpenSSH.
LISTS = _names("""
    canonicaldomains canonicalizepermittedcnames channeltimeout globalknownhostsfile ipqos localforward logverbose
    permitremoteopen refuseconnection rekeylimit remoteforward revokedhostkeys sendenv setenv userknownhostsfile
    """)

WORDS = _names("""
    addkeystoagent addressfamily bindaddress bindinterface canonicalizemaxdots casignaturealgorithms certificatefile
    ciphers connectionattempts connecttimeout controlpath controlpersist dynamicforward escapechar fingerprinthash
    forwardagent forwardx11timeout hostbasedacceptedalgorithms hostbasedkeytypes hostkeyalgorithms hostkeyalias hostname
    identityagent identityfile identityfile2 ignoreunknown kbdinteractivedevices kexalgorithms loglevel macs
    numberofpasswordprompts obscurekeystroketiming pkcs11provider port preferredauthentications pubkeyacceptedalgorithms
    pubkeyacceptedkeytypes requiredrsasize securitykeyprovider serveralivecountmax serveraliveinterval sessiontype
    smartcarddevice streamlocalbindmask syslogfacility tag tunneldevice user versionaddendum xauthlocation
    gssapiclientidentity gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity
    gssapitrustdns
    """)

# OpenSSH accepts these and ignores them.
IGNORED = _names("""
    afstokenpassing cipher compressionlevel fallbacktorsh globalknownhostsfile2 kerberosauthentication
    kerberostgtpassing protocol rhostsauthentication rhostsrsaauthentication rsaauthentication useprivilegedport
    userknownhostsfile2 useroaming usersh
    """)

KNOWN = {"host", "include", "match", *FLAGS, *COMMANDS, *LISTS, *WORDS, *IGNORED}
NUMBERS = _names("canonicalizemaxdots connectionattempts numberofpasswordprompts requiredrsasize serveralivecountmax")
HOST_FILES = ("userknownhostsfile", "globalknownhostsfile")
ALIASES = {"identityfile2": "identityfile"}


def problem(keyword: str, words: list[str]) -> str | None:
    """Say what OpenSSH refuses in the arguments of a keyword; None if nothing."""
    if not words or not words[0]:
        return "the argument is missing"
    if keyword in FLAGS:
        allowed = ("yes", "no", "true", "false", *FLAGS[keyword])
        if words[0].lower() not in allowed:
            return f"{words[0]!r} is not one of {', '.join(allowed)}"
    if keyword in NUMBERS and not words[0].lstrip("+-").isdecimal():
        return f"{words[0]!r} is not a number"
    if keyword in HOST_FILES and len(words) > 1 and "none" in map(str.lower, words):
        return "none must be the only argument"
    if len(words) > 1 and keyword not in LISTS:
        return f"{words[1]!r} is one argument too many"
    return None
