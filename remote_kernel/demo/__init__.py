"""Show remote kernels working where there is no remote host: one machine plays both sides.

1. A temporary folder takes everything that is made: keys, known_hosts, ssh_config, kernelspec, logs.
2. An SSH server in Python (`embedded`) listens on loopback and lets in one key, which was made a moment ago.
3. A kernelspec like the one that `remote_kernel add` writes starts a kernel through jupyter_client, the launcher, ssh
   and the agent: nothing in between is a stand-in.
4. The cells of `cells` run in it; what they give is told to a Narrator as it arrives, and written to a notebook.
5. While one of them prints, the connection is cut as rudely as it can be: the ssh process is killed, and the server
   answers nothing for two seconds. No line of the cell's output may be missing.
6. Everything is undone in reverse order, and then looked for: processes by pid and by a variable that the server puts
   into the environment of all it starts, files by the folder.
"""
