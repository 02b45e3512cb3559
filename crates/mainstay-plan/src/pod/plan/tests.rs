mod resize;
mod table;
mod world;
