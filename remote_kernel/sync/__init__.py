"""Files both ways: one end sends, the other receives, and either may be the remote one.

    sender                                          receiver
      BEGIN   what the source is called, whether a folder  ──▶
      ENTRIES every file, folder and link of it, with size, mode, time, while more are listed  ──▶
      LEFT PASSED RULES  what could not be read, what is not copied, what is left out  ──▶
      ENTRIED how many were left out  ──▶
                                     ◀── ACTIONS  every path that something is to be done with, if asked for
                                     ◀── PLAN  where it goes, how much is to be done
                                     ◀── WANT  a file, and the digests of the blocks of it that are there already
                                     ◀── WANTED
      FILE DATA SAME DATA … DONE, for each  ──▶
      SENT                                                 ──▶
                                     ◀── UNDONE  the first of what failed
                                     ◀── SUMMARY  once everything has its final name, mode and time

Each end speaks only while the other listens, so nothing can wait in a circle; nothing waits per file, so 10,000 files
cost two round trips. The same two programs run on both sides, and the remote one is shipped as the agent is: what is
copied, left out and deleted is decided in one place, whichever transport carries the bytes.

Here alone   `transfer` (what is asked for), `engine` (once, again, or after each change), `local_ends`, `remote_end`
             (the process that leads there), `on_start` (the launcher's)
Both ends    `options`, `wire` (messages), `sender` with `tree` (what is there), `rules` (what is left out), `blocks`;
             `receiver` with `plan` (compare), `contents`, `partial_file`, `folders`; `validate`, `remote_program`: in
             Python 3.8, with the standard library alone, as they are shipped to the host
Over SFTP    `sftp`, which runs both ends here: `sftp_tree` lists, `sftp_push` sends, `sftp_client` is paramiko's with
             many requests at a time

A list goes in as many messages as it takes, so that none needs more than a few MB, whatever it says it has. Neither end
trusts the other: `validate` looks at all that comes before anything is done about it, and `folders` lets no link lead a
file elsewhere.

A file is written beside its final name and gets that in one step. A transfer that broke goes on from there: the
receiver tells what the partial file holds already, and gets the rest.
"""
