"""What a command leaves on a terminal, as an SVG picture.

    dev/terminal_svg.py OUT.svg LINES COLUMNS COMMAND [ARGUMENT ...]

The command runs on a pseudo-terminal of that size, and everything it wrote is drawn in its last state, what went out at
the top too. Of the terminal's language it knows what vbon uses: carriage return, newline, ESC [ n A (up n lines) and
ESC [ K (the rest of the line is cleared). The picture of dev/doc is made by

    dev/terminal_svg.py dev/doc/world.svg 24 120 ./vbon world --n 4
"""
import fcntl
import html
import os
import pty
import re
import struct
import sys
import termios

WIDTH, HEIGHT, MARGIN = 7.8, 17, 14  # of a character; around all


def run(lines, columns, command):
    """Its output on a terminal of this size, and its exit code."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    child = os.fork()
    if not child:
        for fd in range(3):
            os.dup2(terminal, fd)
        os.environ["TERM"] = "xterm"
        os.execvp(command[0], command)
    os.close(terminal)
    text = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # nobody has it open any more
            break
        if not piece:
            break
        text += piece
    return text.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def replay(text):
    """The lines that stand there in the end."""
    lines, y, x = [""], 0, 0
    for plain, move, n in re.findall(r"([^\r\n\x1b]+)|(\r|\n|\x1b\[(\d*)[A-Z])", text):
        if plain:
            lines[y] = lines[y][:x].ljust(x) + plain + lines[y][x + len(plain):]
            x += len(plain)
        elif move == "\r":
            x = 0
        elif move == "\n":
            y += 1
            lines += [""] * (y + 1 - len(lines))
        elif move[-1] == "A":
            y = max(0, y - int(n or 1))
        elif move[-1] == "K":
            lines[y] = lines[y][:x]
        else:
            sys.exit(f"terminal_svg.py: the command moves the cursor by {move!r}, which is not drawn here")
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]


def picture(lines, columns):
    w, h = columns * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:g} {h:g}" width="{w:g}" height="{h:g}">',
           '<rect width="100%" height="100%" rx="8" fill="#1b1f24"/>',
           '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13" fill="#e6e6e6">']
    for k, line in enumerate(lines):
        if line:  # every line as wide as its columns, whatever font there is
            y = MARGIN + HEIGHT * (k + 0.75)
            out.append(f'<text x="{MARGIN}" y="{y:g}" textLength="{len(line) * WIDTH:g}" xml:space="preserve">'
                       f"{html.escape(line)}</text>")
    return "\n".join(out + ["</g>", "</svg>", ""])


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    out, lines, columns, command = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    text, code = run(lines, columns, command)
    if code:
        sys.exit(f"terminal_svg.py: {' '.join(command)}: exit code {code}: {text}")
    with open(out, "w", encoding="utf-8") as f:
        f.write(picture([f"$ {' '.join(command)}"] + replay(text), columns))


if __name__ == "__main__":
    main()
