"""Know the keywords of an ssh config: those that there are, and those that paramiko cannot honour.

ssh refuses a configuration with a keyword that it does not know, for a typo may be what keeps a connection safe.
"""

from __future__ import annotations

_KNOWN = """
    addkeystoagent addressfamily afstokenpassing batchmode bindaddress bindinterface canonicaldomains
    canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames
    casignaturealgorithms certificatefile challengeresponseauthentication channeltimeout checkhostip cipher
    ciphers clearallforwardings compression compressionlevel connectionattempts connecttimeout controlmaster
    controlpath controlpersist dsaauthentication dynamicforward enableescapecommandline enablesshkeysign
    escapechar exitonforwardfailure fallbacktorsh fingerprinthash forkafterauthentication forwardagent
    forwardx11 forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile globalknownhostsfile2
    gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange
    gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hashknownhosts host
    hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias
    hostname identitiesonly identityagent identityfile identityfile2 ignoreunknown include ipqos
    kbdinteractiveauthentication kbdinteractivedevices keepalive kerberosauthentication kerberostgtpassing
    kexalgorithms knownhostscommand localcommand localforward loglevel logverbose macs match
    nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming passwordauthentication
    permitlocalcommand permitremoteopen pkcs11provider port preferredauthentications protocol
    protocolkeepalives proxycommand proxyjump proxyusefdpass pubkeyacceptedalgorithms pubkeyacceptedkeytypes
    pubkeyauthentication refuseconnection rekeylimit remotecommand remoteforward requesttty requiredrsasize
    revokedhostkeys rhostsauthentication rhostsrsaauthentication rsaauthentication securitykeyprovider sendenv
    serveralivecountmax serveraliveinterval sessiontype setenv setuptimeout skeyauthentication smartcarddevice
    stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tag tcpkeepalive
    tisauthentication tunnel tunneldevice updatehostkeys useblacklistedkeys usekeychain useprivilegedport user
    userknownhostsfile userknownhostsfile2 useroaming usersh verifyhostkeydns versionaddendum visualhostkey
    warnweakcrypto xauthlocation
"""
KNOWN = frozenset(_KNOWN.split())

NOT_HONOURED = (
    *("addkeystoagent", "addressfamily", "bindaddress", "bindinterface", "canonicalizehostname", "ciphers"),
    *("compression", "gssapiauthentication", "hostbasedauthentication", "hostkeyalgorithms", "kexalgorithms"),
    *("knownhostscommand", "macs", "pkcs11provider", "pubkeyacceptedalgorithms", "securitykeyprovider"),
    *("verifyhostkeydns", "requiredrsasize", "proxyusefdpass"),
)
"""What a user may rely on, and paramiko cannot do: named in a warning unless it is switched off."""

CRITERIA = frozenset(("all", "canonical", "exec", "final", "host", "localuser", "originalhost", "user"))
NEWER_CRITERIA = frozenset(("command", "localnetwork", "sessiontype", "tagged", "version"))
"""What a Match may ask for, and what paramiko's parser would take for something that holds."""

WHOLE_LINE = frozenset(("knownhostscommand", "localcommand", "proxycommand", "remotecommand"))
"""Keywords whose value is the rest of the line, with what looks like a comment."""
